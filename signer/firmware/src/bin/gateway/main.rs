//! A gateway: it signs a lookup, sends it through its UART, reads the response and acts on it.
//!
//! It handles the faults of real gateways: no clock, a wrong clock, no response, half a response, a late response, noise
//! on the line, a wrong password. It sets its clock from a refusal's `Date` within limits, retries a lookup without a
//! valid response after longer and longer pauses, and stops at a refusal that a retry cannot change. Every step prints
//! a line on the console, which the end-to-end tests read; `settings` lists the arguments.
#![no_std]
#![no_main]

mod modem;
mod settings;

use core::fmt::Write;

use cmiot_signer::http::{Decoder, Endpoint, ExchangeError, Response, send};
use cmiot_signer::{
    DateLimits, Leased, PATH, Refusal, Reply, ReplyError, Sequence, SequenceSource, SignedRequest, Signer,
    Stamp, Status,
};
use cmiot_signer_firmware::MACHINE;
use cmiot_signer_firmware::clock::{self, Clock};
use cmiot_signer_firmware::console::{Console, exit};
use cmiot_signer_firmware::flash::FlashRegion;
use cmiot_signer_firmware::pauses::Pauses;

use embedded_io::Read;

use modem::{Modem, Timeout};
use settings::Settings;

/// Prints a line on the console, which never fails.
macro_rules! print_line {
    ($($text:tt)*) => { writeln!(Console, $($text)*).unwrap_or_default() };
}

/// Attempts per lookup: with the pauses between them enough for a proxy to restart, and few enough for a carrier that is
/// down for long.
const ATTEMPTS: u32 = 8;
/// Milliseconds of silence before a request: a few characters, at any baud rate.
const SILENCE: u32 = 20;
/// Seconds of deviation from which the clock is set. The proxy refuses stamps that deviate by minutes.
const CLOCK_TOLERANCE: u64 = 60;

#[cortex_m_rt::entry]
fn main() -> ! {
    let mut line = [0; 512];
    let Some(settings) = Settings::read(&mut line) else {
        print_line!("the arguments are invalid: see `settings`");
        exit(2)
    };
    clock::start();
    let Ok(sequences) = Leased::mount(FlashRegion::new(), 0, settings.node, 16) else {
        print_line!("the flash cannot be mounted");
        exit(2)
    };
    let mut gateway = Gateway {
        clock: settings.clock(),
        modem: Modem::new(settings.timeout),
        settings,
        sequences,
        unanswered: 0,
    };
    for number in 1..=gateway.settings.lookups {
        if !gateway.look_up(number) {
            exit(1);
        }
    }
    if gateway.settings.reset && gateway.sequences.next_sequence().is_ok_and(is_first_boot) {
        print_line!("reset");
        cortex_m::peripheral::SCB::sys_reset();
    }
    print_line!("done");
    exit(0)
}

struct Gateway<'s> {
    settings: Settings<'s>,
    clock: Clock,
    modem: Modem,
    sequences: Leased<FlashRegion>,
    /// Requests without a response on this connection. Their responses may still come, before that to the next request.
    unanswered: u32,
}

/// The outcome of one attempt.
enum Outcome {
    Known(Status),
    /// The carrier or the proxy refused the lookup.
    Refused,
    /// There was no response, or no valid one.
    Lost,
    /// The clock was set: a retry may succeed.
    ClockSet,
}

impl Gateway<'_> {
    /// Looks the card up and retries where that can help. Returns whether its status is known.
    fn look_up(&mut self, number: u32) -> bool {
        let mut pauses = Pauses::new();
        for attempt in 1..=ATTEMPTS {
            match self.attempt() {
                Outcome::Known(status) => {
                    print_line!("lookup {number}: {} after {attempt} attempts", status.as_str());
                    return true;
                }
                Outcome::Refused => break,
                Outcome::Lost => {
                    // The response, or the rest of it, may still come. A modem that can hang up does that instead.
                    if self.modem.discard(pauses.next_pause().max(self.settings.timeout)) {
                        self.unanswered = self.unanswered.saturating_sub(1);
                    }
                }
                Outcome::ClockSet => {}
            }
        }
        print_line!("lookup {number}: failed");
        false
    }

    /// Sends one request and reads one response.
    fn attempt(&mut self) -> Outcome {
        let Ok(sequence) = self.sequences.next_sequence() else {
            print_line!("no sequence: the flash is worn");
            return Outcome::Refused;
        };
        // Without a clock, any stamp is suitable: the refusal carries the time.
        let stamp = Stamp::from_unix(self.clock.unix()).unwrap_or(Stamp::FIRST);
        let settings = &self.settings;
        let signer = Signer::new(&settings.appid, &settings.ebid, &settings.password);
        let request = signer.sign(stamp, sequence, &settings.card);
        let Ok(endpoint) = Endpoint::new(settings.host, PATH).map(|endpoint| endpoint.keep_alive(true))
        else {
            print_line!("the host is invalid");
            return Outcome::Refused;
        };
        print_line!("ask {}", request.transid());

        self.modem.discard(SILENCE);
        let mut body = [0; 512];
        let sent = send(&mut self.modem, &endpoint, &request);
        let response =
            match sent.and_then(|()| receive(&mut self.modem, &request, &mut self.unanswered, &mut body)) {
                Ok(response) => response,
                Err(error) => {
                    print_line!("no response: {error}");
                    return Outcome::Lost;
                }
            };
        match Reply::scan(response.body).map(Reply::into_status) {
            Ok(Ok(status)) => {
                print_line!("response {}: {}", response.status, status.code());
                Outcome::Known(status)
            }
            Ok(Err(refusal)) => {
                print_line!("response {}: {refusal}", response.status);
                match response.date {
                    Some(date) if matches!(refusal, Refusal::Refused { .. }) && self.set_clock(date) => {
                        Outcome::ClockSet
                    }
                    _ => Outcome::Refused,
                }
            }
            Err(error) => {
                print_line!("response {}: {error}", response.status);
                match error {
                    // A byte was lost, or the modem put a message between them; or a front end is out of service.
                    ReplyError::Truncated | ReplyError::Malformed | ReplyError::NotJson => Outcome::Lost,
                    _ => Outcome::Refused,
                }
            }
        }
    }

    /// Sets the clock to the response's time, if it deviates too much, and within limits.
    fn set_clock(&mut self, date: Stamp) -> bool {
        let clock = self.clock.unix();
        if date.to_unix().abs_diff(clock) <= CLOCK_TOLERANCE {
            return false;
        }
        if let Err(error) = DateLimits::new(self.settings.built).check(clock, date) {
            print_line!("clock kept: {error}");
            return false;
        }
        self.clock.set(date.to_unix());
        print_line!("clock set to {date}");
        true
    }
}

/// Reads the response to `request`. One that names no request is another request's while there are some without a response,
/// since responses come in order: then it is discarded. If none follows it, the other requests' are lost.
fn receive<'b>(
    modem: &mut Modem,
    request: &SignedRequest<'_>,
    unanswered: &mut u32,
    body: &'b mut [u8],
) -> Result<Response<'b>, ExchangeError<Timeout>> {
    let before = *unanswered;
    loop {
        let mut decoder = Decoder::for_transid(request.transid());
        if let Err(error) = receive_into(modem, &mut decoder, body) {
            let silent = matches!(error, ExchangeError::Io(_)) && !modem.heard();
            *unanswered = if silent && *unanswered == before { before + 1 } else { 0 };
            return Err(error);
        }
        if *unanswered == 0 || decoder.response(&[]).named {
            *unanswered = 0;
            return Ok(decoder.response(body));
        }
        *unanswered -= 1;
        print_line!("discarded the response to an earlier request");
    }
}

/// Reads one response and nothing after it, since the next one may follow at once.
fn receive_into(
    modem: &mut Modem,
    decoder: &mut Decoder,
    body: &mut [u8],
) -> Result<(), ExchangeError<Timeout>> {
    let mut byte = [0];
    loop {
        modem.read(&mut byte).map_err(ExchangeError::Io)?;
        if decoder.feed(&byte, body)? {
            return Ok(());
        }
    }
}

/// Whether a device whose flash was empty has not been reset yet: then its numbers are in the first block.
fn is_first_boot(next: Sequence) -> bool {
    next.get() % 1000 < 16
}

#[cortex_m_rt::exception]
fn SysTick() {
    clock::tick();
}

#[panic_handler]
fn panic(panic: &core::panic::PanicInfo<'_>) -> ! {
    print_line!("{MACHINE}: {panic}");
    exit(101)
}
