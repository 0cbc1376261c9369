//! Times on pages and in their queries, at UTC+8.

use jiff::civil;
use jiff::tz;

use crate::clock::Time;

/// A time of a query: RFC 3339, or a date with or without a time at UTC+8, as an input of the browser has it.
///
/// # Errors
/// The valid forms.
pub(super) fn parse(text: &str) -> Result<Time, String> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(Time::from_micros(at.as_microsecond()));
    }
    let local = text.parse::<civil::DateTime>().ok();
    let at = local.and_then(|local| tz::TimeZone::fixed(tz::offset(8)).to_timestamp(local).ok());
    at.map(|at| Time::from_micros(at.as_microsecond()))
        .ok_or_else(|| "2026-01-15, 2026-01-15T12:00, 2026-01-15T12:00:00+08:00".to_owned())
}

/// Date and time to the second, as an input of the browser has them.
pub(super) fn local(at: Time) -> String {
    let text = at.to_string();
    text.get(..19).unwrap_or(&text).to_owned()
}

/// Date and time to the second, for people.
pub(super) fn shown(at: Time) -> String {
    local(at).replace('T', " ")
}

/// The hour of a time.
pub(super) fn hour(at: Time) -> String {
    local(at).get(11..13).unwrap_or_default().to_owned()
}

/// Month and day of a time.
pub(super) fn day(at: Time) -> String {
    local(at).get(5..10).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_every_form_of_a_browser() {
        let noon = Time::from_secs(1_768_449_600);
        for text in
            ["2026-01-15T12:00", "2026-01-15T12:00:00", "2026-01-15T04:00:00Z", "2026-01-15T12:00:00+08:00"]
        {
            assert_eq!(parse(text), Ok(noon), "{text}");
        }
        assert_eq!(parse("2026-01-15").map(Time::as_secs), Ok(noon.as_secs() - 12 * 3_600));
        assert!(parse("yesterday").is_err() && parse("").is_err());
        assert_eq!((local(noon), shown(noon)), ("2026-01-15T12:00:00".into(), "2026-01-15 12:00:00".into()));
        assert_eq!((hour(noon), day(noon)), ("12".into(), "01-15".into()));
    }
}
