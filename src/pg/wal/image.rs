//! Page images in WAL records, made whole again: decompressed, and with their hole (RestoreBlockImage in
//! xlogreader.c). The size of a page is the one that the image itself says.
//!
//! Answers None for whatever PostgreSQL would not have written; nothing here can panic or write more than
//! the largest page.

use super::header::WalFormat;
use super::record::{BKPIMAGE_HAS_HOLE, ImageHeader, compressed};

/// The largest page (configure --with-blocksize).
const MAX_PAGE: usize = 1 << 15;

/// How an image is compressed: one way in 14, one flag for each since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    None,
    Pglz,
    Lz4,
    Zstd,
}

impl Method {
    fn of(info: u8, format: WalFormat) -> Self {
        match info & compressed(format) {
            0 => Self::None,
            0x02 | 0x04 => Self::Pglz,
            0x08 => Self::Lz4,
            _ => Self::Zstd,
        }
    }
}

/// The whole page.
pub(super) fn restore(header: ImageHeader, image: &[u8], format: WalFormat) -> Option<Vec<u8>> {
    let plain = match Method::of(header.info, format) {
        Method::None => image.to_vec(),
        Method::Pglz => pglz(image)?,
        Method::Lz4 => lz4(image)?,
        Method::Zstd => zstd::bulk::decompress(image, MAX_PAGE).ok()?,
    };
    // pd_pagesize_version: the size is a multiple of 256, the version stands in the lower byte.
    let size = usize::from(u16::from_le_bytes(*plain.get(18..)?.first_chunk()?) & 0xFF00);
    let hole = size.checked_sub(plain.len())?;
    let said = header.hole_length.map_or(hole, usize::from);
    if said != hole || (hole > 0) != (header.info & BKPIMAGE_HAS_HOLE != 0) {
        return None;
    }
    let (before, behind) = plain.split_at_checked(usize::from(header.hole_offset).min(plain.len()))?;
    Some([before, &vec![0; hole], behind].concat())
}

/// pglz_decompress (pg_lzcompress.c): a control byte, then for each of its bits, lowest first, a byte or
/// a reference back.
fn pglz(mut source: &[u8]) -> Option<Vec<u8>> {
    let mut page = Vec::with_capacity(MAX_PAGE);
    while let Some((control, rest)) = source.split_first() {
        source = rest;
        for bit in 0..8 {
            let Some((first, rest)) = source.split_first() else { break };
            source = rest;
            if control >> bit & 1 == 0 {
                page.push(*first);
                continue;
            }
            let (second, rest) = source.split_first()?;
            source = rest;
            let mut length = usize::from(first & 0x0F) + 3;
            if length == 18 {
                let (more, rest) = source.split_first()?;
                source = rest;
                length += usize::from(*more);
            }
            copy_back(&mut page, usize::from(first & 0xF0) << 4 | usize::from(*second), length)?;
        }
        if page.len() > MAX_PAGE {
            return None;
        }
    }
    Some(page)
}

/// An LZ4 block: literals and a reference back, by turns (lz4_Block_format.md).
fn lz4(mut source: &[u8]) -> Option<Vec<u8>> {
    let mut page = Vec::with_capacity(MAX_PAGE);
    loop {
        let (token, rest) = source.split_first()?;
        source = rest;
        let literals = lz4_length(usize::from(token >> 4), &mut source)?;
        let (text, rest) = source.split_at_checked(literals)?;
        page.extend_from_slice(text);
        source = rest;
        // The last sequence has literals only.
        let Some((offset, rest)) = source.split_first_chunk::<2>() else { break };
        source = rest;
        let length = lz4_length(usize::from(token & 0x0F), &mut source)?;
        copy_back(&mut page, usize::from(u16::from_le_bytes(*offset)), length.checked_add(4)?)?;
    }
    (page.len() <= MAX_PAGE && source.is_empty()).then_some(page)
}

fn lz4_length(short: usize, source: &mut &[u8]) -> Option<usize> {
    let mut length = short;
    if short < 15 {
        return Some(length);
    }
    loop {
        let (more, rest) = source.split_first()?;
        *source = rest;
        length = length.checked_add(usize::from(*more))?;
        if *more < 255 {
            return Some(length);
        }
    }
}

/// Appends `length` bytes that begin `offset` bytes before the end; they may overlap with themselves.
fn copy_back(page: &mut Vec<u8>, offset: usize, length: usize) -> Option<()> {
    let from = page.len().checked_sub(offset).filter(|_| offset > 0)?;
    if page.len().saturating_add(length) > MAX_PAGE {
        return None;
    }
    for at in from..from.checked_add(length)? {
        let byte = *page.get(at)?;
        page.push(byte);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A page of 8 KiB with text at its end and a hole from 40 on.
    fn page() -> Vec<u8> {
        let mut page = vec![0; 8192];
        page[18..20].copy_from_slice(&(8192_u16 | 4).to_le_bytes());
        page[20..40].fill(7);
        page[8000..].iter_mut().enumerate().for_each(|(n, byte)| *byte = (n % 50) as u8);
        page
    }

    fn without_hole() -> Vec<u8> {
        let page = page();
        [&page[..40], &page[8000..]].concat()
    }

    fn header(info: u8, hole_length: Option<u16>) -> ImageHeader {
        ImageHeader { len: 0, hole_offset: 40, info, hole_length }
    }

    #[test]
    fn an_image_gets_its_hole_back() {
        assert_eq!(restore(header(1, None), &without_hole(), WalFormat::V15), Some(page()));
        let whole = ImageHeader { hole_offset: 0, ..header(0, None) };
        assert_eq!(restore(whole, &page(), WalFormat::V15), Some(page()));
        assert_eq!(restore(header(0, None), &without_hole(), WalFormat::V15), None, "it is too short");
    }

    #[test]
    fn every_compression_is_undone() {
        let zstd = zstd::bulk::compress(&without_hole(), 1).expect("zstd");
        assert_eq!(restore(header(0x11, Some(7960)), &zstd, WalFormat::V16), Some(page()));
        // Literals only: what any compressor may write.
        let plain = without_hole();
        let pglz: Vec<u8> = plain.chunks(8).flat_map(|eight| [&[0], eight].concat()).collect();
        assert_eq!(restore(header(0x05, Some(7960)), &pglz, WalFormat::V15), Some(page()));
        assert_eq!(restore(header(0x03, Some(7960)), &pglz, WalFormat::V14), Some(page()));
        let lz4 = [&[0xF0, (plain.len() - 15) as u8][..], &plain].concat();
        assert_eq!(plain.len(), 232);
        assert_eq!(restore(header(0x09, Some(7960)), &lz4, WalFormat::V15), Some(page()));
    }

    #[test]
    fn references_back_may_overlap_with_themselves() {
        // "ab", then 10 bytes from 2 before.
        assert_eq!(pglz(&[0b100, b'a', b'b', 7, 2]).as_deref(), Some(&b"abababababab"[..]));
        assert_eq!(pglz(&[0b10, b'a', 15, 1, 2]).map(|page| page.len()), Some(1 + 20));
        assert_eq!(lz4(&[0x26, b'a', b'b', 2, 0, 0x10, b'c']).as_deref(), Some(&b"ababababababc"[..]));
        for bad in [&[0b1, 0, 1][..], &[0b10, b'a', 0, 0], &[0b10, b'a', 0, 2]] {
            assert_eq!(pglz(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_restored_to_a_page_or_refused(
            info in 0_u8..64,
            hole_offset: u16,
            hole_length in proptest::option::of(any::<u16>()),
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            for format in [WalFormat::V14, WalFormat::V18] {
                let header = ImageHeader { len: bytes.len() as u16, hole_offset, info, hole_length };
                let page = restore(header, &bytes, format);
                prop_assert!(page.is_none_or(|page| page.len() <= 1 << 16));
            }
        }
    }
}
