//! A gateway at work: signs a look-up, sends it through its UART, reads the answer, and does what it says.
//!
//! What it may meet is what real ones meet: no clock, a wrong clock, no answer, half an answer, a wrong password. A
//! clock is set from the refusal's `Date`; what did not come is asked for again; a refusal that nothing can mend is
//! the end. Every step is a line on the console, which the end-to-end tests read; the arguments stand in `settings`.
#![no_std]
#![no_main]

mod modem;
mod settings;

use core::fmt::Write;

use cmiot_signer::http::{Endpoint, receive, send};
use cmiot_signer::{
    Leased, PATH, Refusal, Reply, ReplyError, Sequence, SequenceSource, Signer, Stamp, Status,
};
use cmiot_signer_firmware::MACHINE;
use cmiot_signer_firmware::clock::{self, Clock};
use cmiot_signer_firmware::console::{Console, exit};
use cmiot_signer_firmware::flash::Kept;

use modem::Modem;
use settings::Settings;

/// Says something; the console takes everything.
macro_rules! say {
    ($($what:tt)*) => { writeln!(Console, $($what)*).unwrap_or_default() };
}

/// How often a look-up is tried. Enough for a proxy to restart; few enough for a carrier that is gone for long.
const ATTEMPTS: u32 = 20;
/// The proxy refuses stamps further off than minutes; a clock this far off is worth setting.
const CLOCK_TOLERANCE: u64 = 60;

#[cortex_m_rt::entry]
fn main() -> ! {
    let mut line = [0; 512];
    let Some(settings) = Settings::read(&mut line) else {
        say!("the arguments are not what `settings` says");
        exit(2)
    };
    clock::start();
    let Ok(sequences) = Leased::mount(Kept::new(), 0, settings.node, 16) else {
        say!("the flash is not as it should be");
        exit(2)
    };
    let mut gateway =
        Gateway { clock: settings.clock(), modem: Modem::new(settings.patience), settings, sequences };
    for number in 1..=gateway.settings.look_ups {
        if !gateway.look_up(number) {
            exit(1);
        }
    }
    if gateway.settings.reset && gateway.sequences.next_sequence().is_ok_and(is_first_boot) {
        say!("reset");
        cortex_m::peripheral::SCB::sys_reset();
    }
    say!("done");
    exit(0)
}

struct Gateway<'s> {
    settings: Settings<'s>,
    clock: Clock,
    modem: Modem,
    sequences: Leased<Kept>,
}

/// What became of one try.
enum Outcome {
    Is(Status),
    /// The carrier or the proxy said no.
    Refused,
    /// Nothing came, or nothing whole.
    Lost,
    /// The clock was set: it may go well now.
    ClockSet,
}

impl Gateway<'_> {
    /// Looks the card up, trying again where that can help. True if its status is known.
    fn look_up(&mut self, number: u32) -> bool {
        for attempt in 1..=ATTEMPTS {
            match self.attempt() {
                Outcome::Is(status) => {
                    say!("look-up {number}: {} after {attempt} attempts", status.as_str());
                    return true;
                }
                Outcome::Refused => break,
                Outcome::Lost | Outcome::ClockSet => {}
            }
        }
        say!("look-up {number}: failed");
        false
    }

    /// One request, one answer.
    fn attempt(&mut self) -> Outcome {
        let Ok(sequence) = self.sequences.next_sequence() else {
            say!("no sequence: the flash is worn");
            return Outcome::Refused;
        };
        // Without a clock any stamp will do: the refusal says what time it is.
        let stamp = Stamp::from_unix(self.clock.unix()).unwrap_or(Stamp::FIRST);
        let settings = &self.settings;
        let signer = Signer::new(&settings.appid, &settings.ebid, &settings.password);
        let request = signer.sign(stamp, sequence, &settings.card);
        let Ok(endpoint) = Endpoint::new(settings.host, PATH).map(|endpoint| endpoint.keep_alive(true))
        else {
            say!("the host cannot be one");
            return Outcome::Refused;
        };
        say!("ask {}", request.transid());

        self.modem.discard();
        let mut body = [0; 512];
        let answer = match send(&mut self.modem, &endpoint, &request)
            .and_then(|()| receive(&mut self.modem, &mut body))
        {
            Ok(answer) => answer,
            Err(error) => {
                say!("no answer: {error}");
                return Outcome::Lost;
            }
        };
        match Reply::scan(answer.body).map(Reply::into_status) {
            Ok(Ok(status)) => {
                say!("answer {}: {}", answer.status, status.code());
                Outcome::Is(status)
            }
            Ok(Err(refusal)) => {
                say!("answer {}: {refusal}", answer.status);
                match answer.date {
                    Some(date) if matches!(refusal, Refusal::Refused { .. }) && self.set_clock(date) => {
                        Outcome::ClockSet
                    }
                    _ => Outcome::Refused,
                }
            }
            Err(error) => {
                say!("answer {}: {error}", answer.status);
                if error == ReplyError::Truncated { Outcome::Lost } else { Outcome::Refused }
            }
        }
    }

    /// Sets the clock by the answer's, if it is far off.
    fn set_clock(&mut self, date: Stamp) -> bool {
        let wrong = date.to_unix().abs_diff(self.clock.unix()) > CLOCK_TOLERANCE;
        if wrong {
            self.clock.set(date.to_unix());
            say!("clock set to {date}");
        }
        wrong
    }
}

/// Whether a device whose flash was empty has not been reset yet: then its numbers are of the first block.
fn is_first_boot(next: Sequence) -> bool {
    next.get() % 1000 < 16
}

#[cortex_m_rt::exception]
fn SysTick() {
    clock::tick();
}

#[panic_handler]
fn panic(panic: &core::panic::PanicInfo<'_>) -> ! {
    say!("{MACHINE}: {panic}");
    exit(101)
}
