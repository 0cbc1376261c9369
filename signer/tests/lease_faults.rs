//! Leased sequences over a flash that fails: power cuts, words that cannot be read after one, writes that fail or do not
//! stick, worn pages, erased values of 0xFF and 0x00. No number is returned twice.
#![cfg(feature = "flash")]
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

use std::collections::HashSet;

use cmiot_signer::{LeaseError, Leased, Node, SequenceSource};
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use proptest::prelude::*;

/// Slots per page.
const SLOTS: usize = 4;

/// NOR flash of two pages in write units of `UNIT` bytes.
#[derive(Clone, Debug)]
struct Flash<const UNIT: usize> {
    bytes: Vec<u8>,
    erased: u8,
    /// Units that cannot be read until they are erased.
    unreadable: HashSet<usize>,
    /// Error correction: a unit at which power failed cannot be read.
    corrects: bool,
    /// Units that are written or erased before power fails, within the next one.
    power: Option<usize>,
    /// Writes return an error and change nothing.
    writes_fail: bool,
    /// Writes to this page succeed and change nothing.
    worn: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    PowerCut,
    Unreadable,
    Write,
}

impl NorFlashError for Fault {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl<const UNIT: usize> Flash<UNIT> {
    const SLOT: usize = if UNIT > 8 { UNIT } else { 8 };
    const PAGE: usize = SLOTS * Self::SLOT;

    fn new(erased: u8, fill: u8, corrects: bool) -> Self {
        let bytes = vec![fill; 2 * Self::PAGE];
        Self {
            bytes,
            erased,
            unreadable: HashSet::new(),
            corrects,
            power: None,
            writes_fail: false,
            worn: None,
        }
    }

    /// Changes a unit, or about half of its bits when power fails.
    fn change(&mut self, unit: usize, to: &[u8]) -> Result<(), Fault> {
        let cut = self.power == Some(0);
        self.power = self.power.map(|left| left.saturating_sub(1));
        for (nth, (byte, &to)) in self.bytes[unit * UNIT..].iter_mut().zip(to).enumerate() {
            let part = if cut { 0x5A_u8.rotate_left((unit + nth) as u32) } else { 0xFF };
            *byte = (*byte & !part) | (to & part);
        }
        if !cut {
            return Ok(());
        }
        if self.corrects {
            self.unreadable.insert(unit);
        }
        Err(Fault::PowerCut)
    }

    fn is_readable(&self, at: usize, len: usize) -> bool {
        !(at / UNIT..(at + len).div_ceil(UNIT)).any(|unit| self.unreadable.contains(&unit))
    }

    /// The offset of the highest mark.
    fn newest(&self) -> Option<usize> {
        let word = |at: usize| u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap());
        (0..self.bytes.len())
            .step_by(Self::SLOT)
            .filter(|at| word(*at) == !word(at + 4) && self.is_readable(*at, 8))
            .max_by_key(|at| word(*at))
    }
}

impl<const UNIT: usize> ErrorType for Flash<UNIT> {
    type Error = Fault;
}

impl<const UNIT: usize> ReadNorFlash for Flash<UNIT> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Fault> {
        let at = offset as usize;
        if !self.is_readable(at, bytes.len()) {
            return Err(Fault::Unreadable);
        }
        bytes.copy_from_slice(&self.bytes[at..at + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const UNIT: usize> NorFlash for Flash<UNIT> {
    const WRITE_SIZE: usize = UNIT;
    const ERASE_SIZE: usize = Self::PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Fault> {
        assert_eq!(to - from, Self::PAGE as u32, "one page");
        let home = self.newest().map(|at| at / Self::PAGE);
        assert_ne!(home, Some(from as usize / Self::PAGE), "the page with the highest mark is erased");
        for unit in from as usize / UNIT..to as usize / UNIT {
            self.change(unit, &[self.erased; UNIT])?;
            self.unreadable.remove(&unit);
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Fault> {
        let first = offset as usize / UNIT;
        assert!((offset as usize).is_multiple_of(UNIT) && bytes.len().is_multiple_of(UNIT), "whole units");
        if self.writes_fail {
            return Err(Fault::Write);
        }
        if self.worn == Some(offset as usize / Self::PAGE) {
            return Ok(());
        }
        for (unit, bytes) in (first..).zip(bytes.chunks(UNIT)) {
            let old = &self.bytes[unit * UNIT..];
            // Programming changes bits in one direction only.
            let new: Vec<u8> = old
                .iter()
                .zip(bytes)
                .map(|(old, new)| if self.erased == 0xFF { old & new } else { old | new })
                .collect();
            self.change(unit, &new)?;
        }
        Ok(())
    }
}

/// An event in the life of a device.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// It takes this many numbers.
    Take(usize),
    /// Power fails after this many units, while it takes numbers.
    Cut(usize),
    Reset,
    WritesFail(bool),
    Worn(Option<usize>),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1usize..12).prop_map(Event::Take),
        4 => (0usize..24).prop_map(Event::Cut),
        1 => Just(Event::Reset),
        1 => any::<bool>().prop_map(Event::WritesFail),
        1 => prop_oneof![Just(None), Just(Some(0)), Just(Some(1))].prop_map(Event::Worn),
    ]
}

const BLOCK: u32 = 3;

/// A device over its life, with its flash and the numbers that it has returned.
struct Device<const UNIT: usize> {
    flash: Flash<UNIT>,
    seen: HashSet<u32>,
}

impl<const UNIT: usize> Device<UNIT> {
    /// Takes numbers, at most `count`; an error is no reason to stop. Each must be new.
    fn take(&mut self, count: usize) {
        let mut sequences = Leased::mount(self.flash.clone(), 0, Node::ONLY, BLOCK).unwrap();
        for _ in 0..count {
            match sequences.next_sequence() {
                Ok(number) => assert!(self.seen.insert(number.get()), "{number} was returned before"),
                Err(LeaseError::Flash(Fault::PowerCut)) => break,
                Err(_) => {}
            }
        }
        self.flash = sequences.unmount();
    }

    fn live(mut self, events: &[Event]) {
        for event in events {
            match *event {
                Event::Take(count) => self.take(count),
                Event::Cut(units) => {
                    self.flash.power = Some(units);
                    self.take(60);
                    self.flash.power = None;
                }
                Event::Reset => self.take(0),
                Event::WritesFail(fail) => self.flash.writes_fail = fail,
                Event::Worn(page) => self.flash.worn = page,
            }
        }
        (self.flash.writes_fail, self.flash.worn) = (false, None);
        let before = self.seen.len();
        // At most a page of slots fails before a write succeeds.
        self.take(2 * SLOTS + 1);
        assert!(self.seen.len() > before, "a sound flash returns numbers");
    }
}

fn device<const UNIT: usize>(erased: u8, fill: u8, corrects: bool) -> Device<UNIT> {
    Device { flash: Flash::new(erased, fill, corrects), seen: HashSet::new() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_number_twice_on_a_flash_that_fails(
        events in proptest::collection::vec(event(), 1..24),
        erased in prop_oneof![Just(0xFF_u8), Just(0x00)],
        fill in prop_oneof![Just(0xFF_u8), Just(0x00), Just(0xA5)],
        corrects in any::<bool>(),
    ) {
        device::<4>(erased, fill, corrects).live(&events);
        device::<8>(erased, fill, corrects).live(&events);
        device::<512>(erased, fill, corrects).live(&events);
    }

    #[test]
    fn the_newest_mark_may_become_unreadable_once(
        before in proptest::collection::vec(1usize..12, 1..12),
        after in proptest::collection::vec(1usize..12, 1..12),
    ) {
        let mut device = device::<8>(0xFF, 0xFF, true);
        before.into_iter().for_each(|count| device.take(count));
        let newest = device.flash.newest().unwrap() / 8;
        device.flash.unreadable.insert(newest);
        after.into_iter().for_each(|count| device.take(count));
    }
}

#[test]
fn a_slot_that_cannot_be_read_is_used_and_a_flash_that_cannot_is_an_error() {
    let mut sound = device::<8>(0xFF, 0xFF, true);
    sound.take(4);
    let mut flash = sound.flash;
    flash.power = Some(0);
    let mut sequences = Leased::mount(flash, 0, Node::ONLY, BLOCK).unwrap();
    assert_eq!(sequences.next_sequence(), Err(LeaseError::Flash(Fault::PowerCut)));
    let mut flash = sequences.unmount();
    flash.power = None;
    assert!(!flash.unreadable.is_empty());
    let mut sequences = Leased::mount(flash.clone(), 0, Node::ONLY, BLOCK).unwrap();
    // Marks of 3 and 6 are there; the block of the third, whose mark may have been whole once, is skipped.
    assert_eq!(sequences.next_sequence().unwrap().get(), 10);

    flash.unreadable = (0..2 * SLOTS).collect();
    let mounted = Leased::mount(flash, 0, Node::ONLY, BLOCK);
    assert_eq!(mounted.err(), Some(LeaseError::Flash(Fault::Unreadable)));
}

#[test]
fn a_worn_page_ends_the_numbers_and_not_the_highest_mark() {
    let mut worn = device::<8>(0xFF, 0xFF, false);
    worn.flash.worn = Some(1);
    // Page 0 takes four marks of three numbers; page 1 takes none, however often it is erased.
    worn.take(100);
    assert_eq!(worn.seen.len(), 12);
    worn.take(0);
    worn.flash.worn = None;
    worn.take(3);
    assert_eq!(worn.seen.len(), 15);
}

#[test]
fn a_flash_that_erases_to_zeros_is_worn_no_faster() {
    let mut zeros = device::<8>(0x00, 0x00, false);
    for boot in 0..100 {
        zeros.take(1);
        let used = (0..2 * SLOTS).filter(|slot| zeros.flash.bytes[slot * 8..][..8] != [0; 8]).count();
        assert_eq!(used, if boot < SLOTS { boot + 1 } else { SLOTS + boot % SLOTS + 1 }, "boot {boot}");
    }
}
