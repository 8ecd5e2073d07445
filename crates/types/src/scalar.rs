//! Values that are written as one word: lengths of time, numbers of bytes, addresses.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;

/// Units of time, the longest first, with their length in microseconds.
const TIME_UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// Units of sizes; powers of 1,024 have their own names.
const BYTE_UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Why a text is not a length of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DurationError {
    NoUnit,
    UnknownUnit,
    NotANumber,
    TooLong,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoUnit => "has no unit",
            Self::UnknownUnit => "has an unknown unit; units are us, ms, s, m, h, d",
            Self::NotANumber => "must be a number and a unit",
            Self::TooLong => "is too large",
        })
    }
}

/// `2s`, `1.5s`, `500ms`, `1h30m`: one or more numbers, each with its unit.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text;
    let mut total_us: u64 = 0;
    if rest.is_empty() {
        return Err(DurationError::NotANumber);
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let pointed = number.starts_with('.') || number.ends_with('.');
        if number.is_empty() || pointed || number.matches('.').count() > 1 {
            return Err(DurationError::NotANumber);
        }
        if unit.is_empty() {
            return Err(DurationError::NoUnit);
        }
        let (_, unit_us) = TIME_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or(DurationError::UnknownUnit)?;
        let part = decimal(number, *unit_us).ok_or(DurationError::TooLong)?;
        total_us = total_us.checked_add(part).ok_or(DurationError::TooLong)?;
        rest = tail;
    }
    Ok(Duration::from_micros(total_us))
}

/// `number * unit` for a decimal number, rounded down. `None` if it does not fit or is no number.
fn decimal(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // Nine digits are below a microsecond of any unit up to a quarter of an hour; more are cut.
    let fraction = &fraction[..fraction.len().min(9)];
    let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    let whole: u64 = whole.parse().ok()?;
    let fraction: u64 = fraction.parse().ok()?;
    let part = u128::from(fraction) * u128::from(unit) / u128::from(scale);
    whole
        .checked_mul(unit)?
        .checked_add(u64::try_from(part).ok()?)
}

/// A length of time as people write it, in its largest unit that has no remainder.
pub fn show(duration: Duration) -> String {
    let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let (name, unit) = TIME_UNITS
        .iter()
        .find(|(_, unit)| us > 0 && us.is_multiple_of(*unit))
        .unwrap_or(&("s", 1_000_000));
    format!("{}{name}", us / unit)
}

/// `65536`, `64KiB`, `1.5MB`. `None` if it is none of that.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let (_, unit) = BYTE_UNITS.iter().find(|(name, _)| *name == unit)?;
    decimal(number, *unit)
}

/// Why a text is not an address with a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressError {
    NoPort,
    BadPort,
    NoBrackets,
    NoAddress,
    HostName,
    Blank,
    /// An IPv4 address in the form of IPv6.
    Mapped,
    BadAddress,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPort => "has no port",
            Self::BadPort => "has a port that is not 1 to 65535",
            Self::NoBrackets => "is an IPv6 address without brackets around it",
            Self::NoAddress => "has no address before its port",
            Self::HostName => "is a host name; only addresses can be written here for now",
            Self::Blank => "has a blank in it",
            Self::Mapped => "is an IPv4 address in the form of IPv6",
            Self::BadAddress => "is not an IP address with a port",
        })
    }
}

impl AddressError {
    /// The address that was meant beyond doubt, so that it can be judged as well. `None` if there
    /// is none.
    pub fn meant(self, text: &str) -> Option<SocketAddr> {
        match self {
            Self::Blank => {
                let meant: String = text.chars().filter(|c| !c.is_whitespace()).collect();
                address(&meant).ok()
            }
            Self::Mapped => text.parse().ok().map(canonical),
            Self::NoPort
            | Self::BadPort
            | Self::NoBrackets
            | Self::NoAddress
            | Self::HostName
            | Self::BadAddress => None,
        }
    }

    /// What was probably meant. `None` if there is no good guess.
    pub fn hint(self, text: &str) -> Option<String> {
        match self {
            Self::NoPort if text.parse::<IpAddr>().is_ok() => {
                Some(format!("did you mean `{text}:80`?"))
            }
            Self::NoBrackets => {
                let split = text.rsplit_once(':').filter(|(address, port)| {
                    address.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok()
                });
                Some(match split {
                    Some((address, port)) => format!("did you mean `[{address}]:{port}`?"),
                    None => format!("did you mean `[{text}]:80`?"),
                })
            }
            Self::NoAddress => {
                let port = text.rsplit(':').next().unwrap_or("80");
                Some(format!(
                    "for example `127.0.0.1:{port}`; to listen on every address, `0.0.0.0:{port}` \
                     (IPv4) or `[::]:{port}`"
                ))
            }
            Self::HostName => Some("write the address that the name stands for".to_owned()),
            Self::BadPort => text.parse::<SocketAddr>().ok().and_then(|address| {
                let is_zero = address.port() == 0;
                (!is_zero).then(|| format!("did you mean `{address}`?"))
            }),
            Self::Blank | Self::Mapped => self
                .meant(text)
                .map(|address| format!("did you mean `{address}`?")),
            Self::NoPort | Self::BadAddress => None,
        }
    }
}

/// An IPv4 address that was written in the form of IPv6 as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V4(ip), address.port()),
        // With its zone.
        IpAddr::V6(_) => address,
    }
}

/// `192.0.2.1:80` or `[2001:db8::1]:80`, the port not 0.
///
/// # Errors
/// What is wrong with it.
pub fn address(text: &str) -> Result<SocketAddr, AddressError> {
    if text.contains(char::is_whitespace) {
        return Err(AddressError::Blank);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        // Some programs read a leading zero as octal.
        let is_plain = text.ends_with(&format!(":{}", address.port()));
        return if address.port() == 0 || !is_plain {
            Err(AddressError::BadPort)
        } else if canonical(address) != address {
            Err(AddressError::Mapped)
        } else {
            Ok(address)
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(AddressError::NoBrackets);
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err(AddressError::NoPort);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AddressError::NoAddress);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(if is_host_name(text) {
            AddressError::HostName
        } else {
            AddressError::BadAddress
        });
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_address = host.parse::<std::net::Ipv4Addr>().is_ok()
        || bare.is_some_and(|bare| bare.parse::<Ipv6Addr>().is_ok());
    match port.parse::<u16>() {
        _ if host.is_empty() || host == "*" => Err(AddressError::NoAddress),
        Err(_) if is_address => Err(AddressError::BadPort),
        Ok(_) if host.parse::<Ipv6Addr>().is_ok() => Err(AddressError::NoBrackets),
        _ if is_host_name(host) => Err(AddressError::HostName),
        _ => Err(AddressError::BadAddress),
    }
}

/// Whether it could be a host name: it has a letter, which an IPv4 address has not.
fn is_host_name(text: &str) -> bool {
    text.chars().any(|c| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

#[cfg(test)]
mod tests;
