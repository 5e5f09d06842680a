//! Many pushers of one name at once.

use std::process::Child;

use crate::harness::*;
use crate::wal::*;

const PUSHERS: usize = 16;

fn start(server: &ServerDir, repo: &TestRepo, name: &str) -> Child {
    server.push_command(repo, name).stderr(std::process::Stdio::piped()).spawn().expect("start wal-push")
}

/// Exit codes and messages.
fn wait(pushers: Vec<Child>) -> Vec<(i32, String)> {
    let outputs = pushers.into_iter().map(|pusher| pusher.wait_with_output().expect("wait for wal-push"));
    outputs
        .map(|output| {
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            (output.status.code().unwrap_or_else(|| panic!("killed: {message}")), message)
        })
        .collect()
}

#[test]
fn sixteen_pushers_of_the_same_content_all_succeed() {
    let repo = TestRepo::init();
    let names = [wal().segments(1)[1], "00000002.history"];
    let server = ServerDir::with(&names);
    for name in names {
        let ended = wait((0..PUSHERS).map(|_| start(&server, &repo, name)).collect());
        assert!(ended.iter().all(|(code, _)| *code == 0), "{ended:?}");
        let key = repo.only(name);
        let content = if key.ends_with(".zst") { unzstd(&repo, &key) } else { repo.read(&key) };
        assert!(content == wal().file(name));
    }
    assert!(repo.matching("#").is_empty() && repo.matching("/lock/").is_empty(), "{:?}", repo.list());
}

#[test]
fn of_sixteen_pushers_of_different_content_exactly_one_wins() {
    let repo = TestRepo::init();
    let name = wal().segments(1)[1];
    // Behind the record that ended the segment early: the content differs, the records do not.
    let contents: Vec<Vec<u8>> = (0..PUSHERS)
        .map(|n| {
            let mut content = wal().file(name).to_vec();
            content[400_000] = n as u8;
            content
        })
        .collect();
    let servers: Vec<ServerDir> = contents
        .iter()
        .map(|content| {
            let server = ServerDir::new();
            server.put(name, content);
            server
        })
        .collect();
    let ended = wait(servers.iter().map(|server| start(server, &repo, name)).collect());
    let winners: Vec<usize> = (0..PUSHERS).filter(|n| ended[*n].0 == 0).collect();
    assert_eq!(winners.len(), 1, "{ended:?}");
    for (n, (code, message)) in ended.iter().enumerate().filter(|(n, _)| *n != winners[0]) {
        assert_eq!(*code, 4, "pusher {n}: {message}");
        assert!(message.contains(&blake3::hash(&contents[n]).to_string()), "{message}");
    }
    assert!(unzstd(&repo, &repo.only(name)) == contents[winners[0]]);
}
