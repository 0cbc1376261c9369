//! Times and months on the command line.

use cmiot_proxy::clock::{Clock, Time};
use cmiot_proxy::store::audit::month::Month;

/// Reads `2h` (ago), `2026-01-15` (midnight at +08:00) or RFC 3339.
pub(super) fn time(text: &str) -> Result<Time, String> {
    if let Ok(ago) = text.parse::<jiff::SignedDuration>()
        && let Ok(ago) = std::time::Duration::try_from(ago)
    {
        return Ok(Clock::system().now().minus(ago));
    }
    // A moment reads as a day too, without its time.
    if let (10, Ok(day)) = (text.len(), text.parse::<jiff::civil::Date>()) {
        let midnight = jiff::tz::offset(8).to_timestamp(day.at(0, 0, 0, 0));
        return midnight.map(|at| Time::from_micros(at.as_microsecond())).map_err(|e| e.to_string());
    }
    text.parse::<jiff::Timestamp>()
        .map(|at| Time::from_micros(at.as_microsecond()))
        .map_err(|_| "write 2h, 30m, 2026-01-15 (at +08:00) or 2026-01-15T12:00:00+08:00".to_owned())
}

/// Reads `2026-01`.
pub(super) fn month(text: &str) -> Result<Month, String> {
    Month::parse(text).ok_or_else(|| "write a month as 2026-01".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let noon = Time::from_secs(1_768_449_600);
        assert_eq!(time("2026-01-15T12:00:00+08:00"), Ok(noon));
        assert_eq!(time("2026-01-15T04:00:00Z"), Ok(noon));
        assert_eq!(time("2026-01-15"), Ok(Time::from_secs(1_768_449_600 - 12 * 3_600)));
        assert!(time("2h").is_ok() && time("1h 30m").is_ok());
        assert!(time("yesterday").unwrap_err().contains("2026-01-15"));
        assert_eq!(month("2026-01").unwrap().to_string(), "2026-01");
        assert!(month("2026-13").is_err());
    }
}
