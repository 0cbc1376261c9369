//! Leased sequences over a flash that loses power: no number repeats after a loss at any moment.
#![cfg(feature = "flash")]
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

use std::collections::HashSet;

use cmiot_signer::{LeaseError, Leased, Node, SequenceSource};
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

/// NOR flash with pages of 32 bytes, so that a few marks fill one. Writing clears bits, erasing sets them, and
/// power fails after `power` more bytes of either, in the middle of the next one.
#[derive(Clone, Debug)]
struct Flash<const WRITE: usize> {
    bytes: Vec<u8>,
    power: usize,
    erasures: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PowerCut;

impl NorFlashError for PowerCut {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl<const WRITE: usize> Flash<WRITE> {
    fn new(fill: u8) -> Self {
        Self { bytes: vec![fill; 128], power: usize::MAX, erasures: 0 }
    }

    /// Changes a byte, or half of its bits when power fails; the half depends on the address.
    fn change(&mut self, at: usize, to: u8) -> Result<(), PowerCut> {
        if self.power == 0 {
            let half = 0x5A_u8.rotate_left(at as u32);
            self.bytes[at] = (self.bytes[at] & !half) | (to & half);
            return Err(PowerCut);
        }
        self.power -= 1;
        self.bytes[at] = to;
        Ok(())
    }
}

impl<const WRITE: usize> ErrorType for Flash<WRITE> {
    type Error = PowerCut;
}

impl<const WRITE: usize> ReadNorFlash for Flash<WRITE> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), PowerCut> {
        bytes.copy_from_slice(&self.bytes[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const WRITE: usize> NorFlash for Flash<WRITE> {
    const WRITE_SIZE: usize = WRITE;
    const ERASE_SIZE: usize = 32;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), PowerCut> {
        assert!(from.is_multiple_of(32) && to.is_multiple_of(32) && from < to, "whole pages");
        self.erasures += 1;
        (from..to).try_for_each(|at| self.change(at as usize, 0xFF))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), PowerCut> {
        assert!(
            (offset as usize).is_multiple_of(WRITE) && bytes.len().is_multiple_of(WRITE),
            "whole write units"
        );
        for (at, &byte) in (offset as usize..).zip(bytes) {
            assert!(self.bytes[at] == 0xFF || WRITE == 1, "written twice without an erasure");
            self.change(at, self.bytes[at] & byte)?;
        }
        Ok(())
    }
}

const START: u32 = 32;

fn mount<const WRITE: usize>(flash: Flash<WRITE>) -> Leased<Flash<WRITE>> {
    Leased::mount(flash, START, Node::ONLY, 3).unwrap()
}

/// Runs until power fails, like a device that is switched on repeatedly.
fn run<const WRITE: usize>(mut flash: Flash<WRITE>, cuts: &[usize], seen: &mut HashSet<u32>) -> Flash<WRITE> {
    for &power in cuts {
        flash.power = power;
        let mut sequences = mount(flash);
        loop {
            match sequences.next_sequence() {
                Ok(sequence) => assert!(seen.insert(sequence.get()), "{sequence} twice, cuts {cuts:?}"),
                Err(error) => {
                    assert_eq!(error, LeaseError::Flash(PowerCut));
                    break;
                }
            }
        }
        flash = sequences.unmount();
    }
    flash
}

fn survives_every_cut<const WRITE: usize>() {
    // Enough bytes to fill and erase both pages twice.
    for fill in [0xFF, 0x00, 0xA5] {
        for first in 0..300 {
            for second in [0, 1, 5, 11, 39, 40, 41, 75] {
                let mut seen = HashSet::new();
                let mut flash = run(Flash::<WRITE>::new(fill), &[first, second, first % 7, 60], &mut seen);
                // With power, it continues.
                flash.power = usize::MAX;
                let mut sequences = mount(flash);
                for _ in 0..50 {
                    assert!(seen.insert(sequences.next_sequence().unwrap().get()), "cuts {first}, {second}");
                }
                // Each of five starts may lose a block, and an interrupted but valid mark another one.
                let (highest, used) = (seen.iter().max().unwrap(), seen.len() as u32);
                assert!(
                    *highest <= used + 5 * 2 * 3,
                    "{highest} after {used} numbers, cuts {first}, {second}"
                );
                assert!(
                    sequences.unmount().bytes[..START as usize].iter().all(|&b| b == fill),
                    "stays in its pages"
                );
            }
        }
    }
}

#[test]
fn no_number_twice_whatever_byte_power_fails_at() {
    survives_every_cut::<1>();
    survives_every_cut::<4>();
}

#[test]
fn no_number_twice_with_large_write_units() {
    survives_every_cut::<16>();
}

#[test]
fn a_reset_forfeits_the_rest_of_a_block_and_no_more() {
    let mut sequences = mount(Flash::<4>::new(0xFF));
    let numbers: Vec<u32> = (0..4).map(|_| sequences.next_sequence().unwrap().get()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    let mut sequences = mount(sequences.unmount());
    assert_eq!(sequences.next_sequence().unwrap().get(), 7);
}

#[test]
fn wear_is_as_stated() {
    let mut sequences = mount(Flash::<4>::new(0xFF));
    // Four slots per page, three numbers per mark: one erasure per twelve numbers.
    for _ in 0..1200 {
        sequences.next_sequence().unwrap();
    }
    assert_eq!(sequences.unmount().erasures, 100);
}

#[test]
fn numbers_stay_in_their_node() {
    let node = Node::new(6, 42).unwrap();
    let mut sequences = Leased::mount(Flash::<4>::new(0xFF), START, node, 7).unwrap();
    let round: HashSet<u32> = (0..100).map(|_| sequences.next_sequence().unwrap().get()).collect();
    assert_eq!(round, (4200..4300).collect());
    assert_eq!(sequences.next_sequence().unwrap(), node.first());
}

#[test]
fn layouts_that_cannot_be_are_refused() {
    for (start, block) in [(1, 3), (96, 3), (128, 3), (u32::MAX - 31, 3), (0, 0)] {
        let mounted = Leased::mount(Flash::<4>::new(0xFF), start, Node::ONLY, block);
        assert_eq!(mounted.err(), Some(LeaseError::Layout), "{start}, {block}");
    }
}

#[test]
fn a_worn_page_and_the_last_number_are_errors() {
    let mut worn = Flash::<1>::new(0xFF);
    // Page 0 erased and its first slot taken by the first lease; a bit of the second slot is stuck at zero.
    let mut sequences = mount(worn.clone());
    sequences.next_sequence().unwrap();
    worn = sequences.unmount();
    let mut sequences = mount(worn);
    sequences.next_sequence().unwrap();
    let mut flash = sequences.unmount();
    flash.bytes[START as usize + 16] = 0xFE;
    flash.bytes[START as usize + 24] = 0xFF;
    let mut sequences = mount(flash);
    // The damaged slot counts as a torn mark and is skipped.
    assert_eq!(sequences.next_sequence().unwrap().get(), 7);

    let mut flash = Flash::<4>::new(0xFF);
    let mark = u32::MAX - 1;
    flash.bytes[START as usize..][..4].copy_from_slice(&mark.to_le_bytes());
    flash.bytes[START as usize + 4..][..4].copy_from_slice(&(!mark).to_le_bytes());
    assert_eq!(mount(flash).next_sequence(), Err(LeaseError::Exhausted));
}
