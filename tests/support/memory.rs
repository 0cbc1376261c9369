//! The memory of a process, as a core has it. The process must allow core dumps (`process.allow_core_dumps`).

use std::io::{Read, Seek, SeekFrom};

/// The number of times that a text is in the writable memory of a process.
pub(crate) fn count(pid: u32, text: &str) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let writable =
        maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw")));
    let mut found = 0;
    for line in writable {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [mut at, end] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut carried = Vec::new();
        while at < end {
            let size = (end - at).min(1 << 20);
            let mut part = vec![0; usize::try_from(size).unwrap()];
            // Mappings of the kernel cannot be read.
            if memory.seek(SeekFrom::Start(at)).is_err() || memory.read_exact(&mut part).is_err() {
                break;
            }
            carried.extend_from_slice(&part);
            found += memchr::memmem::find_iter(&carried, text.as_bytes()).count();
            // One that continues in the next part; none is counted twice.
            carried.drain(..carried.len().saturating_sub(text.len() - 1));
            at += size;
        }
    }
    found
}
