use super::*;

#[test]
fn lengths_of_time() {
    for (text, us) in [
        ("2s", 2_000_000),
        ("500ms", 500_000),
        ("1.5s", 1_500_000),
        ("1h30m", 5_400_000_000),
        ("7us", 7),
        ("0s", 0),
        ("1d", 86_400_000_000),
    ] {
        assert_eq!(duration(text), Ok(Duration::from_micros(us)), "{text}");
    }
    for (text, error) in [
        ("2", DurationError::NoUnit),
        ("1h30", DurationError::NoUnit),
        ("2 s", DurationError::UnknownUnit),
        ("2sec", DurationError::UnknownUnit),
        ("", DurationError::NotANumber),
        ("s", DurationError::NotANumber),
        ("-2s", DurationError::NotANumber),
        ("1.2.3s", DurationError::NotANumber),
        ("99999999999999999999d", DurationError::TooLong),
        ("999999999999d", DurationError::TooLong),
        (".s", DurationError::NotANumber),
    ] {
        assert_eq!(duration(text), Err(error), "{text}");
    }
}

#[test]
fn lengths_of_time_are_shown_as_they_are_written() {
    for text in ["1ms", "1d", "7d", "90s", "1500ms", "2m"] {
        assert_eq!(show(duration(text).unwrap()), text);
    }
    assert_eq!(show(Duration::ZERO), "0s");
}

#[test]
fn numbers_of_bytes() {
    for (text, number) in [
        ("65536", Some(65_536)),
        ("64KiB", Some(65_536)),
        ("64 KiB", Some(65_536)),
        ("1.5MB", Some(1_500_000)),
        ("64K", None),
        ("", None),
        ("-1", None),
        ("KiB", None),
    ] {
        assert_eq!(bytes(text), number, "{text}");
    }
}

#[test]
fn addresses() {
    for text in [
        "127.0.0.1:80",
        "[::1]:443",
        "0.0.0.0:1",
        "[2001:db8::1]:65535",
    ] {
        assert!(address(text).is_ok(), "{text}");
    }
    for (text, error, hint) in [
        (
            "127.0.0.1",
            AddressError::NoPort,
            Some("did you mean `127.0.0.1:80`?"),
        ),
        ("127.0.0.1:0", AddressError::BadPort, None),
        ("127.0.0.1:65536", AddressError::BadPort, None),
        (
            "127.0.0.1:080",
            AddressError::BadPort,
            Some("did you mean `127.0.0.1:80`?"),
        ),
        ("127.0.0.1:http", AddressError::BadPort, None),
        (
            "::1",
            AddressError::NoBrackets,
            Some("did you mean `[::1]:80`?"),
        ),
        ("2001:db8::7:8:9:a:b:80", AddressError::NoBrackets, None),
        (
            "fe80::1:9001",
            AddressError::NoBrackets,
            Some("did you mean `[fe80::1]:9001`?"),
        ),
        ("8080", AddressError::NoAddress, None),
        (":8080", AddressError::NoAddress, None),
        ("*:8080", AddressError::NoAddress, None),
        ("localhost:80", AddressError::HostName, None),
        (
            "127.0.0.1:9001 ",
            AddressError::Blank,
            Some("did you mean `127.0.0.1:9001`?"),
        ),
        (
            "[::ffff:127.0.0.1]:8080",
            AddressError::Mapped,
            Some("did you mean `127.0.0.1:8080`?"),
        ),
        ("example.com", AddressError::HostName, None),
        ("256.0.0.1:80", AddressError::BadAddress, None),
        ("", AddressError::BadAddress, None),
    ] {
        assert_eq!(address(text), Err(error), "{text}");
        if let Some(hint) = hint {
            assert_eq!(error.hint(text).as_deref(), Some(hint));
        }
    }
}
