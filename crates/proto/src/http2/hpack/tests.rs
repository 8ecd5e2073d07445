//! The examples of RFC 7541 Appendix C, and what the appendix does not show.

use proptest::prelude::*;

use super::super::fields::Fields;
use super::{DecodeLimits, Decoded, Decoder, Encoder, HpackError, fixed, huffman, integer};

const LIMITS: DecodeLimits = DecodeLimits {
    list_bytes_max: 16_384,
    fields_max: 100,
    work_bytes_max: 65_536,
};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, HpackError> {
    let mut fields = Fields::default();
    decoder.decode(block, &LIMITS, &mut fields)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(fields
        .iter()
        .map(|field| (text(field.name), text(field.value)))
        .collect())
}

/// A block, the fields it means, and the table's entries and size after it.
type Example = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [(&'static str, &'static str)],
    usize,
);

fn check(table_bytes: usize, examples: &[Example]) {
    let mut decoder = Decoder::new(table_bytes);
    for (block, expected, entries, size) in examples {
        let fields = decode(&mut decoder, &bytes(block)).unwrap();
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(fields, *expected);
        let table = decoder.table();
        let held: Vec<(&str, &str)> = (0..table.len())
            .map(|index| {
                let (name, value) = table.entry(index).unwrap();
                (
                    std::str::from_utf8(name).unwrap(),
                    std::str::from_utf8(value).unwrap(),
                )
            })
            .collect();
        assert_eq!(held, *entries);
        assert_eq!(table.size(), *size);
    }
}

#[test]
fn integers_are_those_of_c_1() {
    for (value, prefix, code) in [(10, 5, "0a"), (1_337, 5, "1f9a0a"), (42, 8, "2a")] {
        let mut out = Vec::new();
        integer::encode(value, prefix, 0, &mut out);
        assert_eq!(out, bytes(code));
        assert_eq!(integer::decode(&out, prefix), Ok((value, &[][..])));
    }
}

#[test]
fn literals_are_those_of_c_2() {
    check(
        4_096,
        &[(
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            &[("custom-key", "custom-header")],
            &[("custom-key", "custom-header")],
            55,
        )],
    );
    check(
        4_096,
        &[(
            "040c 2f73 616d 706c 652f 7061 7468",
            &[(":path", "/sample/path")],
            &[],
            0,
        )],
    );
    check(
        4_096,
        &[(
            "1008 7061 7373 776f 7264 0673 6563 7265 74",
            &[("password", "secret")],
            &[],
            0,
        )],
    );
    check(4_096, &[("82", &[(":method", "GET")], &[], 0)]);
}

const REQUEST_1: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
];
const REQUEST_2: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
    ("cache-control", "no-cache"),
];
const REQUEST_3: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];
const TABLE_1: &[(&str, &str)] = &[(":authority", "www.example.com")];
const TABLE_2: &[(&str, &str)] = &[
    ("cache-control", "no-cache"),
    (":authority", "www.example.com"),
];
const TABLE_3: &[(&str, &str)] = &[
    ("custom-key", "custom-value"),
    ("cache-control", "no-cache"),
    (":authority", "www.example.com"),
];

#[test]
fn requests_are_those_of_c_3_and_c_4() {
    check(
        4_096,
        &[
            (
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                REQUEST_1,
                TABLE_1,
                57,
            ),
            (
                "8286 84be 5808 6e6f 2d63 6163 6865",
                REQUEST_2,
                TABLE_2,
                110,
            ),
            (
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                REQUEST_3,
                TABLE_3,
                164,
            ),
        ],
    );
    check(
        4_096,
        &[
            (
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                REQUEST_1,
                TABLE_1,
                57,
            ),
            ("8286 84be 5886 a8eb 1064 9cbf", REQUEST_2, TABLE_2, 110),
            (
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
                REQUEST_3,
                TABLE_3,
                164,
            ),
        ],
    );
}

const DATE_21: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
const DATE_22: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
const LOCATION: (&str, &str) = ("location", "https://www.example.com");
const PRIVATE: (&str, &str) = ("cache-control", "private");
const COOKIE: (&str, &str) = (
    "set-cookie",
    "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
);
const RESPONSES: [&[(&str, &str)]; 3] = [
    &[(":status", "302"), PRIVATE, DATE_21, LOCATION],
    &[(":status", "307"), PRIVATE, DATE_21, LOCATION],
    &[
        (":status", "200"),
        PRIVATE,
        DATE_22,
        LOCATION,
        ("content-encoding", "gzip"),
        COOKIE,
    ],
];
const RESPONSE_TABLES: [&[(&str, &str)]; 3] = [
    &[LOCATION, DATE_21, PRIVATE, (":status", "302")],
    &[(":status", "307"), LOCATION, DATE_21, PRIVATE],
    &[COOKIE, ("content-encoding", "gzip"), DATE_22],
];

#[test]
fn responses_and_evictions_are_those_of_c_5_and_c_6() {
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a
         3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04
         677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49
         553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
    ];
    let coded = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e
         919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7
         821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed
         4ee5 b106 3d50 07",
    ];
    for blocks in [plain, coded] {
        let sizes = [222, 222, 215];
        let examples: Vec<Example> = (0..3)
            .map(|at| (blocks[at], RESPONSES[at], RESPONSE_TABLES[at], sizes[at]))
            .collect();
        check(256, &examples);
    }
}

/// What must be refused, by name.
#[test]
fn malformed_blocks_are_refused() {
    use HpackError::{Huffman, Index, Integer, SizeUpdate, Truncated};
    let rows: [(&str, HpackError); 20] = [
        ("80", Index),                     // index 0
        ("be", Index),                     // beyond the static table, dynamic one empty
        ("ff00", Index),                   // 127
        ("ff80808001", Index),             // far beyond
        ("ff8080808001", Integer),         // a fifth byte
        ("ffffffffffffffffff01", Integer), // overflow
        ("ff", Truncated),                 // integer without its second byte
        ("7f", Truncated),                 // the same, in a name
        ("40", Truncated),                 // no name
        ("4001", Truncated),               // a name without its byte
        ("400161", Truncated),             // no value
        ("40016105", Truncated),           // a value without its bytes
        ("0000", Truncated),               // name empty, no value
        ("3fe21f", SizeUpdate),            // 4,097
        ("8220", SizeUpdate),              // update behind a field
        ("202020", SizeUpdate),            // three updates
        ("4085ffffffff3f00", Huffman),     // end of string inside
        ("4081fe00", Huffman),             // filled up with a zero
        ("40821fff00", Huffman),           // eight bits of filling
        ("4084ffffffff00", Huffman),       // 32 bits of filling
    ];
    for (block, expected) in rows {
        let mut decoder = Decoder::new(4_096);
        let found = decode(&mut decoder, &bytes(block));
        assert_eq!(found, Err(expected), "{block}");
    }
}

#[test]
fn table_size_updates_evict_and_are_bounded() {
    let mut decoder = Decoder::new(4_096);
    decode(&mut decoder, &bytes("4001610162")).unwrap();
    assert_eq!(decoder.table().len(), 1);
    // To 0 and back to 4,096: the entry is gone.
    decode(&mut decoder, &bytes("20 3fe11f")).unwrap();
    assert_eq!(decoder.table().len(), 0);
    // A lower announced size, once acknowledged, has to be met by the next block.
    decoder.limit(100);
    let mut refused = decoder.clone();
    assert_eq!(
        decode(&mut refused, &bytes("82")),
        Err(HpackError::SizeUpdate)
    );
    decode(&mut decoder, &bytes("3f45 82")).unwrap();
    decode(&mut decoder, &bytes("82")).unwrap();
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::new(64);
    decode(&mut decoder, &bytes("4001610162")).unwrap();
    let long = "61".repeat(40);
    decode(&mut decoder, &bytes(&format!("4028{long}0162"))).unwrap();
    assert_eq!(decoder.table().len(), 0);
}

/// One large entry, then a byte for each copy of it.
#[test]
fn bombs_end_in_an_error_and_large_lists_are_only_cut() {
    let value = "61".repeat(2_000);
    let mut block = bytes(&format!("4001 61 7f d10e {value}").replace("7f d10e", "7fd10e"));
    block.extend(std::iter::repeat_n(0xbe, 6));
    let mut decoder = Decoder::new(4_096);
    let mut fields = Fields::default();
    let few = decoder.decode(&block, &LIMITS, &mut fields).unwrap();
    assert_eq!((few, fields.len()), (Decoded::Whole, 7));

    block.extend(std::iter::repeat_n(0xbe, 10));
    let mut decoder = Decoder::new(4_096);
    let cut = decoder.decode(&block, &LIMITS, &mut fields).unwrap();
    assert_eq!((cut, fields.len()), (Decoded::TooLarge, 8));
    assert_eq!(decoder.table().len(), 1);

    block.extend(std::iter::repeat_n(0xbe, 10_000));
    let mut decoder = Decoder::new(4_096);
    let bomb = decoder.decode(&block, &LIMITS, &mut fields);
    assert_eq!(bomb, Err(HpackError::Bomb));

    let mut decoder = Decoder::new(4_096);
    let many = decoder.decode(&[0x82; 101], &LIMITS, &mut fields).unwrap();
    assert_eq!((many, fields.len()), (Decoded::TooManyFields, 100));
}

#[test]
fn every_static_field_is_found_by_name_and_value() {
    for (place, (name, value)) in fixed::TABLE.iter().enumerate() {
        let first = fixed::index_of_name(name.as_bytes());
        assert!(first > 0 && first <= place + 1, "{name}");
        assert_eq!(fixed::TABLE[first - 1].0, *name);
        let found = fixed::index_of_field(first, name.as_bytes(), value.as_bytes());
        let expected = if value.is_empty() { 0 } else { place + 1 };
        assert_eq!(found, expected, "{name}: {value}");
    }
    assert_eq!(fixed::index_of_name(b"x-other"), 0);
}

#[test]
fn secrets_stay_out_of_the_table() {
    let mut encoder = Encoder::new(4_096);
    let mut out = Vec::new();
    for name in [
        "authorization",
        "cookie",
        "set-cookie",
        "proxy-authorization",
    ] {
        encoder.field(name.as_bytes(), b"secret", false, &mut out);
    }
    encoder.field(b"x-token", b"secret", true, &mut out);
    assert!(encoder.table().is_empty());
    let mut decoder = Decoder::new(4_096);
    let mut fields = Fields::default();
    decoder.decode(&out, &LIMITS, &mut fields).unwrap();
    assert_eq!(fields.len(), 5);
    assert!(fields.iter().all(|field| field.is_sensitive));
    assert!(decoder.table().is_empty());
}

#[test]
fn the_peer_s_table_size_is_told_before_the_next_field() {
    let mut encoder = Encoder::new(4_096);
    let mut out = Vec::new();
    encoder.field(b"a", b"b", false, &mut out);
    encoder.limit(0);
    encoder.limit(1_000_000);
    out.clear();
    encoder.begin(&mut out);
    assert_eq!(out, bytes("20 3fe11f"));
    out.clear();
    encoder.begin(&mut out);
    assert!(out.is_empty());
    // A limit of our own below what peers begin with is told too.
    let mut small = Encoder::new(100);
    small.begin(&mut out);
    assert_eq!(out, bytes("3f45"));
}

fn field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, bool)> {
    let name = prop_oneof![
        3 => prop::sample::select(vec![
            &b":path"[..], b":status", b"accept", b"cookie", b"x-one", b"x-two", b"date",
        ])
        .prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    let value = prop_oneof![
        3 => prop::sample::select(vec![&b""[..], b"/", b"200", b"abc", b"abcdefghijklmnop"])
            .prop_map(<[u8]>::to_vec),
        2 => prop::collection::vec(any::<u8>(), 0..60),
    ];
    (name, value, prop::bool::weighted(0.1))
}

proptest! {
    #![proptest_config(proptest::test_runner::Config {
        cases: 400,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn every_text_survives_the_huffman_code(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let (mut code, mut back) = (Vec::new(), Vec::new());
        huffman::encode(&text, &mut code);
        prop_assert_eq!(code.len(), huffman::encoded_len(&text));
        huffman::decode(&code, &mut back).unwrap();
        prop_assert_eq!(back, text);
    }

    /// A code that is taken is the only one for its text.
    #[test]
    fn no_two_codes_have_one_text(code in prop::collection::vec(any::<u8>(), 0..40)) {
        let (mut text, mut again) = (Vec::new(), Vec::new());
        if huffman::decode(&code, &mut text).is_ok() {
            huffman::encode(&text, &mut again);
            prop_assert_eq!(again, code);
        }
    }

    /// Any fields, any tables, sizes changing in between: what is encoded is decoded, and both
    /// tables stay equal.
    #[test]
    fn blocks_come_back_as_they_were(
        blocks in prop::collection::vec(
            (prop::collection::vec(field(), 0..12), prop::option::weighted(0.2, 0_usize..400)),
            1..12,
        ),
        cap in 0_usize..400,
    ) {
        let mut encoder = Encoder::new(cap);
        let mut decoder = Decoder::new(4_096);
        let mut fields = Fields::default();
        for (list, size) in blocks {
            let mut out = Vec::new();
            encoder.begin(&mut out);
            for (name, value, is_sensitive) in &list {
                encoder.field(name, value, *is_sensitive, &mut out);
            }
            decoder.decode(&out, &LIMITS, &mut fields).unwrap();
            let back: Vec<_> = fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect();
            let sent: Vec<_> = list.iter().map(|(name, value, _)| (name.clone(), value.clone())).collect();
            prop_assert_eq!(back, sent);
            let (ours, theirs) = (encoder.table(), decoder.table());
            prop_assert_eq!(ours.len(), theirs.len());
            for index in 0..ours.len() {
                prop_assert_eq!(ours.entry(index), theirs.entry(index));
            }
            if let Some(size) = size {
                decoder.limit(size);
                encoder.limit(size);
            }
        }
    }

    #[test]
    fn random_blocks_never_panic(block in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut decoder = Decoder::new(200);
        let mut fields = Fields::default();
        let _ = decoder.decode(&block, &LIMITS, &mut fields);
        prop_assert!(decoder.table().size() <= 200);
    }
}
