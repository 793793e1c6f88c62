//! Values as they are written, and what they mean.

use std::time::Duration;

/// A whole number within bounds.
pub(crate) fn count(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let number = text.trim().replace('_', "");
    let value: u64 =
        number.parse().map_err(|_| format!("a whole number from {min} to {max} is needed"))?;
    within(value, min, max)
}

/// A number of bytes within bounds: `65536`, `64 KiB`, `1.5 GB`.
pub(crate) fn bytes(text: &str, min: u64, max: u64) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("", 1),
        ("B", 1),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    let wrong = || "a number of bytes is needed, such as 65536, 64 KiB or 1.5 GB".to_owned();
    let (number, unit) = number_and_unit(text);
    let (_, factor) =
        UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?;
    let value = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(*factor).ok_or_else(wrong)?,
        Err(_) if *factor > 1 => scaled(number, *factor as f64).ok_or_else(wrong)?.round() as u64,
        Err(_) => return Err(wrong()),
    };
    within(value, min, max)
}

/// A time with its unit, longer than nothing: `500 ms`, `10s`, `1.5 min`, `2 h`. None is `off`, if that is allowed.
pub(crate) fn time(text: &str, may_be_off: bool) -> Result<Option<Duration>, String> {
    const UNITS: [(&str, f64); 5] =
        [("ms", 0.001), ("s", 1.0), ("min", 60.0), ("h", 3_600.0), ("d", 86_400.0)];
    if may_be_off && text.trim().eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let wrong = || {
        let off = if may_be_off { ", or off" } else { "" };
        format!("a time with its unit is needed, such as 500 ms, 10 s, 5 min or 1 h{off}")
    };
    let (number, unit) = number_and_unit(text);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let seconds = scaled(number, *factor).ok_or_else(wrong)?;
    // A hundred years: beyond it deadlines overflow clocks.
    if !(0.001..=3.2e9).contains(&seconds) {
        return Err(wrong());
    }
    Ok(Some(Duration::from_secs_f64(seconds)))
}

/// True or false in the ways in which people write them.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err("true or false is needed".to_owned()),
    }
}

/// `host:port`, where the host is a name, an IPv4 address or an IPv6 address in brackets.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let wrong =
        || "an address and a port are needed, such as 127.0.0.1:5432 or [::1]:5432".to_owned();
    let text = text.trim();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_sound = match bracketed {
        Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '[', ']', '/', ' ']),
    };
    if !host_is_sound || port.parse::<u16>().is_err() {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

/// An http or https address. None is `off`.
pub(crate) fn url(text: &str) -> Result<Option<String>, String> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = text.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let has_host = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']));
    if has_host
        && !text.contains(|character: char| character.is_whitespace() || character.is_control())
    {
        Ok(Some(text.to_owned()))
    } else {
        Err("an address that begins with http:// or https:// is needed, or off".to_owned())
    }
}

/// A device's name.
pub(crate) fn device(text: &str) -> Result<String, String> {
    let name = text.trim().to_ascii_lowercase();
    let numbered = name.strip_prefix("wgpu:").is_some_and(|number| number.parse::<u16>().is_ok());
    if numbered || matches!(name.as_str(), "auto" | "cpu" | "wgpu") {
        Ok(name)
    } else {
        Err("auto, cpu, wgpu or wgpu:N is needed".to_owned())
    }
}

/// One of some words, in any case.
pub(crate) fn choice(text: &str, words: &[&'static str]) -> Result<&'static str, String> {
    let found = words.iter().find(|word| word.eq_ignore_ascii_case(text.trim()));
    found.copied().ok_or_else(|| format!("{} is needed", words.join(" or ")))
}

/// The known name that was probably meant: at most two letters away, and nearer than nothing at all.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= 2 && distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be put in, left out or changed (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in right.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

fn within(value: u64, min: u64, max: u64) -> Result<u64, String> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(format!("it must be from {min} to {max}"))
    }
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|letter: char| letter.is_alphabetic()).unwrap_or(text.len());
    (text[..end].trim_end(), &text[end..])
}

fn scaled(number: &str, factor: f64) -> Option<f64> {
    let plain = number.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    let value = number.parse::<f64>().ok().filter(|_| plain)?;
    let scaled = value * factor;
    scaled.is_finite().then_some(scaled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        for (text, expected) in [
            ("65536", 65_536),
            ("64 KiB", 65_536),
            ("64kib", 65_536),
            ("1.5 GB", 1_500_000_000),
            ("2 MB", 2_000_000),
            ("0", 0),
        ] {
            assert_eq!(bytes(text, 0, u64::MAX), Ok(expected), "{text}");
        }
        for text in [
            "",
            "MiB",
            "-1",
            "1.5",
            "64 Mb per second",
            "99999999999 TiB",
            "1e3",
            "inf GB",
            "1,5 GB",
        ] {
            assert!(bytes(text, 0, u64::MAX).is_err(), "{text}");
        }
        assert!(bytes("1 KiB", 2_048, 4_096).is_err());
    }

    #[test]
    fn times_need_units() {
        for (text, expected) in
            [("500ms", 500), ("10 s", 10_000), ("1.5 min", 90_000), ("2h", 7_200_000)]
        {
            assert_eq!(time(text, false), Ok(Some(Duration::from_millis(expected))), "{text}");
        }
        assert_eq!(time("off", true), Ok(None));
        for text in ["", "10", "off", "0 s", "-1 s", "1 fortnight", "1e300 s", "nan s"] {
            assert!(time(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_have_ports() {
        for text in ["127.0.0.1:5432", "localhost:0", "[::1]:5432", "0.0.0.0:65535"] {
            assert_eq!(address(text).as_deref(), Ok(text));
        }
        for text in [
            "",
            "5432",
            ":5432",
            "127.0.0.1",
            "127.0.0.1:65536",
            "::1:5432",
            "[nonsense]:1",
            "http://a:1",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn devices_have_names() {
        for text in ["auto", "CPU", "wgpu", "wgpu:0", "wgpu:12"] {
            assert_eq!(device(text), Ok(text.to_ascii_lowercase()));
        }
        for text in ["", "gpu", "wgpu:", "wgpu:-1", "cuda"] {
            assert!(device(text).is_err(), "{text}");
        }
    }

    #[test]
    fn near_names_are_found() {
        assert_eq!(
            nearest("max_conections", ["max_connections", "listen"]),
            Some("max_connections")
        );
        assert_eq!(nearest("colour", ["max_connections", "listen"]), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
