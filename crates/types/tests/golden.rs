//! Every file in `tests/site/*.yaml` is refused with exactly the text beside it (`.txt`), or
//! accepted if that text is `ok` or has warnings alone. After an intended change:
//! `UPDATE_GOLDEN=1 cargo test -p hitless-types --test golden`, then read the diff.

use std::fs;
use std::path::Path;

use hitless_types::site::Site;

#[test]
fn messages_are_as_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/site");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    inputs.sort();
    assert!(inputs.len() > 10, "the inputs are gone");
    let mut wrong = Vec::new();
    for input in inputs {
        let name = input.file_name().unwrap().to_str().unwrap().to_owned();
        let text = match Site::check(&name, &fs::read(&input).unwrap()) {
            Ok((_, None)) => "ok\n".to_owned(),
            Ok((_, Some(warnings))) => format!("{warnings}\n"),
            Err(problems) => format!("{problems}\n"),
        };
        let golden = input.with_extension("txt");
        if update {
            fs::write(&golden, &text).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != text {
            wrong.push(format!("== {name} now gives:\n{text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
