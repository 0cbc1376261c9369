//! Leased sequences over a flash that fails: power cuts, words that cannot be read after one, writes that fail or do not
//! stick, worn pages, erased values of 0xFF and 0x00. No number is returned twice, over a blocking driver or an async one.
#![cfg(feature = "flash")]
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use cmiot_signer::{LeaseError, Leased, LeasedAsync, Node, Sequence, SequenceSource};
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

/// An async driver for a flash. Each function waits once before it accesses the flash, and once after that.
struct Waits<const UNIT: usize>(Flash<UNIT>);

impl<const UNIT: usize> ErrorType for Waits<UNIT> {
    type Error = Fault;
}

impl<const UNIT: usize> embedded_storage_async::nor_flash::ReadNorFlash for Waits<UNIT> {
    const READ_SIZE: usize = Flash::<UNIT>::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Fault> {
        wait().await;
        let read = self.0.read(offset, bytes);
        wait().await;
        read
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<const UNIT: usize> embedded_storage_async::nor_flash::NorFlash for Waits<UNIT> {
    const WRITE_SIZE: usize = Flash::<UNIT>::WRITE_SIZE;
    const ERASE_SIZE: usize = Flash::<UNIT>::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Fault> {
        wait().await;
        let erased = self.0.erase(from, to);
        wait().await;
        erased
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Fault> {
        wait().await;
        let written = self.0.write(offset, bytes);
        wait().await;
        written
    }
}

/// Is pending once.
async fn wait() {
    let mut waited = false;
    poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// The output of a future after at most `polls` polls; then it is dropped.
fn polled<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    (0..polls).find_map(|_| match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}

/// More polls than any function needs.
const ALL: usize = 10_000;

type Numbers = Vec<Result<u32, LeaseError<Fault>>>;

/// Starts, and takes `count` numbers, up to a power cut.
fn blocking<const UNIT: usize>(flash: Flash<UNIT>, count: usize) -> (Flash<UNIT>, Numbers) {
    let mut sequences = Leased::mount(flash, 0, Node::ONLY, BLOCK).unwrap();
    let numbers = up_to_a_cut(count, || sequences.next_sequence().map(Sequence::get));
    (sequences.unmount(), numbers)
}

/// [`blocking`], async.
fn asynchronous<const UNIT: usize>(flash: Flash<UNIT>, count: usize) -> (Flash<UNIT>, Numbers) {
    let mounted = LeasedAsync::<_, 512>::mount(Waits(flash), 0, Node::ONLY, BLOCK);
    let mut sequences = polled(mounted, ALL).unwrap().unwrap();
    let numbers = up_to_a_cut(count, || polled(sequences.next_sequence(), ALL).unwrap().map(Sequence::get));
    (sequences.unmount().0, numbers)
}

fn up_to_a_cut(count: usize, mut next: impl FnMut() -> Result<u32, LeaseError<Fault>>) -> Numbers {
    let mut numbers = Vec::new();
    while numbers.len() < count && numbers.last() != Some(&Err(LeaseError::Flash(Fault::PowerCut))) {
        numbers.push(next());
    }
    numbers
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
    /// Takes numbers, at most `count`; an error is no reason to stop. Each must be new, and an async driver gives the same.
    fn take(&mut self, count: usize) {
        let (flash, numbers) = blocking(self.flash.clone(), count);
        let (also, same) = asynchronous(self.flash.clone(), count);
        assert_eq!((numbers.as_slice(), &flash.bytes), (same.as_slice(), &also.bytes));
        for number in numbers.into_iter().flatten() {
            assert!(self.seen.insert(number), "{number} was returned before");
        }
        self.flash = flash;
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

#[test]
fn a_future_that_is_dropped_repeats_no_number() {
    // The first numbers of a page, within it, and those that erase the other one.
    for taken in 0..30 {
        for polls in 0..12 {
            let mounted =
                LeasedAsync::<_>::mount(Waits(Flash::<8>::new(0xFF, 0xFF, false)), 0, Node::ONLY, BLOCK);
            let mut sequences = polled(mounted, ALL).unwrap().unwrap();
            let mut seen = HashSet::new();
            let mut next = |sequences: &mut LeasedAsync<Waits<8>>, polls| {
                let number = polled(sequences.next_sequence(), polls)?.unwrap().get();
                assert!(seen.insert(number), "{number} was returned before: {taken}, {polls}");
                Some(number)
            };
            for _ in 0..taken {
                next(&mut sequences, ALL).unwrap();
            }
            // Two waits per access: to erase, to write, to read back.
            let needed = match taken {
                _ if taken % BLOCK as usize != 0 => 1,
                _ if taken % (SLOTS * BLOCK as usize) == 0 => 7,
                _ => 5,
            };
            assert_eq!(next(&mut sequences, polls).is_some(), polls >= needed, "{taken}, {polls}");
            for _ in 0..30 {
                next(&mut sequences, ALL).unwrap();
            }
            // A reset after all of that.
            let mounted = LeasedAsync::mount(sequences.unmount(), 0, Node::ONLY, BLOCK);
            let mut sequences = polled(mounted, ALL).unwrap().unwrap();
            next(&mut sequences, ALL).unwrap();
        }
    }
}
