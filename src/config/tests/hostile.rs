use proptest::prelude::*;

use super::super::Config;
use super::super::problem::MAX_LISTED;
use super::{MINIMAL, environment, errors, parse};

#[test]
fn deep_nesting_is_refused_without_exhausting_the_stack() {
    let brackets = "[".repeat(200_000);
    let arrays = format!("x = {brackets}");
    let closed = format!("x = {}{}", "[".repeat(40), "]".repeat(40));
    let dotted = format!("{}b = 1", "a.".repeat(200_000));
    let tables = format!("x = {}", "{a=".repeat(100_000));
    let header = format!("[{}b]", "a.".repeat(200_000));
    for text in [&arrays, &closed, &dotted, &tables, &header] {
        let first: String = errors(text)[0].chars().take(80).collect();
        assert!(first.starts_with("vedetta.toml"), "{first}");
    }
    let sets = [
        format!("{}b=1", "a.".repeat(10_000)),
        format!("mqtt.host={brackets}"),
    ];
    for set in sets {
        assert!(Config::from_toml(MINIMAL, "vedetta.toml", &[set], &environment()).is_err());
    }
}

#[test]
fn many_errors_are_cut_short() {
    let text: String = (0..20_000).map(|n| format!("k{n} = 1\n")).collect();
    let found = errors(&text);
    assert_eq!(found.len(), MAX_LISTED + 1);
    assert!(found.last().unwrap().ends_with(" more"));
    let text: String = (0..20_000).map(|_| "= =\n").collect();
    assert_eq!(errors(&text).len(), MAX_LISTED + 1);
}

/// Lines that look like a configuration, right and wrong ones.
fn line() -> impl Strategy<Value = String> {
    let header = prop::sample::select(vec![
        "[[camera]]",
        "[[label]]",
        "[[camera.zone]]",
        "[camera.gate]",
        "[camera.baseline]",
        "[mqtt]",
        "[mqtt.tls]",
        "[model]",
        "[outbox]",
        "[decision]",
        "[negatives]",
        "[camera]",
        "[[mqtt]]",
    ]);
    let key = prop::sample::select(vec![
        "id",
        "name",
        "device",
        "noun",
        "prompts",
        "enter",
        "leave",
        "window",
        "rectangle",
        "polygon",
        "labels",
        "rate_fps",
        "size",
        "format",
        "port",
        "host",
        "password",
        "threads",
        "backend",
        "dwell_s",
        "stall_after_s",
        "frozen_after_s",
        "deviations",
        "forget_after_s",
        "max_bytes",
        "commands",
        "replay",
        "enabled",
        "zone",
        "group",
    ]);
    let value = prop_oneof![
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:?}").replace("NaN", "nan")),
        "[a-z-]{0,8}".prop_map(|text| format!("{text:?}")),
        "\\PC{0,8}".prop_map(|text| format!("{text:?}")),
        prop::collection::vec(-1.0..2.0, 0..5).prop_map(|list| format!("{list:?}")),
        Just("[[0, 0], [1, 0], [0, 1]]".to_owned()),
        Just("{ id = \"a\", enter = 0.5 }".to_owned()),
        Just("[{ id = \"a\" }, 3, \"b\"]".to_owned()),
        Just("1979-05-27T07:32:00Z".to_owned()),
    ];
    prop_oneof![
        1 => header.prop_map(str::to_owned),
        2 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
    ]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,300}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_configuration_makes_it_panic_and_what_is_accepted_reads_the_same_again(
        lines in prop::collection::vec(line(), 0..20),
        minimal in any::<bool>(),
    ) {
        let start = if minimal { MINIMAL } else { "" };
        let text = format!("{start}{}", lines.join("\n"));
        if let Ok(mut config) = parse(&text) {
            // The one thing that is not printed.
            if let Some(login) = &mut config.mqtt.credentials {
                login.password = "(hidden)".to_owned();
            }
            prop_assert_eq!(parse(&config.to_toml()).unwrap(), config);
        }
    }

    #[test]
    fn no_override_makes_it_panic(
        key in "[a-z0-9._]{0,20}|camera\\.[0-9]\\.[a-z_]{1,8}|(mqtt|label|model)\\.[a-z0-9.]{1,9}",
        value in "\\PC{0,20}",
    ) {
        let set = format!("{key}={value}");
        let _ = Config::from_toml(MINIMAL, "vedetta.toml", &[set], &environment());
    }
}
