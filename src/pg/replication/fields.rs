//! The fields of a message, front to back: big-endian numbers and strings that end in NUL. Every read is
//! checked; what is too short gives None.

/// What is left of a message's body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub fn of(body: &'a [u8]) -> Self {
        Self(body)
    }

    /// Everything that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    pub fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string without its NUL.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.0.iter().position(|byte| *byte == 0)?;
        let text = self.bytes(length)?;
        self.u8()?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_order_and_only_if_they_are_whole() {
        let mut fields = Fields::of(b"\x01\x00\x02\x00\x00\x00\x03ab\x00\x00\x00\x00\x00\x00\x00\x00\x04x");
        assert_eq!((fields.u8(), fields.i16(), fields.i32()), (Some(1), Some(2), Some(3)));
        assert_eq!((fields.string(), fields.u64()), (Some(&b"ab"[..]), Some(4)));
        assert_eq!((fields.i16(), fields.string(), fields.bytes(2)), (None, None, None));
        assert_eq!(fields.rest(), b"x");
    }
}
