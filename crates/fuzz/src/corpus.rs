//! Inputs as lines of hexadecimal digits, with comments behind `#`.

/// The inputs of a corpus.
pub(crate) fn inputs(text: &str) -> Vec<Vec<u8>> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or(""))
        .map(bytes)
        .filter(|input| !input.is_empty())
        .collect()
}

/// The line of an input.
pub(crate) fn hex(input: &[u8]) -> String {
    input.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(line: &str) -> Vec<u8> {
    let digits: Vec<u8> = line
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    let (pairs, _) = digits.as_chunks::<2>();
    pairs.iter().map(|[high, low]| high << 4 | low).collect()
}
