use std::path::Path;

use super::super::{Config, ConfigError};
use super::{MINIMAL, environment, errors, parse, parse_with};

#[test]
fn every_problem_is_reported_with_its_line_key_and_legal_values() {
    let text = r#"
device = "Negozio 1"
colour = "red"

[mqtt]
hots = "broker"
port = 70000
version = "4"

[[label]]
noun = "mela"
enter = 1.4
dwell_s = "long"

[[camera]]
device = "/dev/video0"
fps = 3
size = [1280]
"#;
    let found = errors(text);
    let expected = [
        "vedetta.toml:2: device = \"Negozio 1\": must be 1 to 64 of a-z, 0-9 and '-', not starting \
         or ending with '-'; negozio-1 would do",
        "vedetta.toml:3: colour: unknown key; legal here: device, device_name, state_dir, \
         log_level, model, update, mqtt, outbox, heat, decision, negatives, label, camera",
        "vedetta.toml:6: mqtt.hots: unknown key; did you mean host? Legal here: host, port, \
         version, username, password, password_file, client_id, topic_prefix, keep_alive_s, \
         discovery, discovery_prefix, evidence, health_every_s, commands, tls",
        "vedetta.toml:7: mqtt.port = 70000: must be 1 to 65535",
        "vedetta.toml:8: mqtt.version = \"4\": must be one of \"5\", \"3.1.1\"",
        "vedetta.toml:12: label.enter = 1.4: must be 0 to 1",
        "vedetta.toml:13: label.dwell_s = \"long\": must be a number",
        "vedetta.toml:17: camera.fps: unknown key; did you mean rate_fps? Legal here: id, name, \
         device, format, size, replay, repeat, rate_fps, stall_after_s, frozen_after_s, gate, baseline, zone",
        "vedetta.toml:18: camera.size = [1280]: must be [width, height] in pixels, each 16 to 8192",
    ];
    assert_eq!(found, expected);
}

/// `text` after the minimal configuration gives one error, which contains `expected`.
#[track_caller]
fn refused(text: &str, expected: &str) {
    let found = errors(&format!("{MINIMAL}{text}"));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].contains(expected),
        "{}\nlacks {expected}",
        found[0]
    );
}

#[test]
fn ids_are_unique() {
    let label = "[[label]]\nid = \"scaffale-vuoto\"\nnoun = \"ripiano vuoto\"\n";
    refused(
        label,
        ":6: label.id = \"scaffale-vuoto\": a label with the id",
    );
    let cameras = "[[camera]]\nid = \"a\"\n[[camera]]\nid = \"a\"\n[[camera.zone]]\nid = \"b\"\n\
                   [[label]]\nnoun = \"mela\"\n";
    assert!(errors(cameras)[0].contains(":4: camera.id = \"a\": a camera with the id a"));
    let zones = "[[camera]]\nid = \"a\"\n[[camera]]\nid = \"b\"\n[[camera.zone]]\nid = \"a\"\n\
                 [[label]]\nnoun = \"mela\"\n";
    let found = errors(zones);
    assert!(
        found[0].contains(":6: camera.zone.id = \"a\": a zone with the id a"),
        "{found:?}"
    );
}

#[test]
fn a_zone_names_labels_that_exist() {
    let zone = |labels: &str| {
        let (camera, label) = MINIMAL.split_at(MINIMAL.find("[[label]]").unwrap());
        errors(&format!(
            "{camera}[[camera.zone]]\nlabels = {labels}\n{label}"
        ))
    };
    let found = zone("[\"scafale-vuoto\"]");
    assert!(found[0].contains("no label has the id \"scafale-vuoto\"; there are scaffale-vuoto"));
    assert!(zone("[]")[0].contains("must name a label"));
    let twice = zone("[\"scaffale-vuoto\", \"scaffale-vuoto\"]");
    assert!(twice[0].contains("twice"));
}

#[test]
fn leave_is_at_most_enter() {
    let label = "[[label]]\nnoun = \"mela\"\nenter = 0.4\nleave = 0.6\n";
    refused(
        label,
        "vedetta.toml:8: label.leave = 0.6: must be at most enter, 0.4",
    );
    refused(
        "[decision]\nleave = 0.9\n",
        "decision.leave = 0.9: must be at most enter, 0.7",
    );
}

#[test]
fn shapes_lie_inside_the_frame() {
    let zone = |shape: &str| {
        let text = MINIMAL.replace("[[label]]", &format!("[[camera.zone]]\n{shape}\n[[label]]"));
        let found = errors(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    };
    for rectangle in [
        "0, 0, 1.1, 1",
        "0.5, 0, 0.6, 1",
        "0, 0, 0, 1",
        "0, 0, 1",
        "nan, 0, 1, 1",
    ] {
        let message = zone(&format!("rectangle = [{rectangle}]"));
        assert!(message.contains("in fractions of the frame"), "{message}");
    }
    for polygon in [
        "[0, 0], [1, 1]",
        "[0, 0], [0.5, 0.5], [1, 1]",
        "[0, 0], [2, 0], [0, 1]",
    ] {
        let message = zone(&format!("polygon = [{polygon}]"));
        assert!(message.contains("3 to 32 corners"), "{message}");
    }
    let both = "rectangle = [0, 0, 1, 1]\npolygon = [[0, 0], [1, 0], [0, 1]]";
    assert!(zone(both).contains("exclude each other"));
}

#[test]
fn a_label_is_a_noun_or_prompts() {
    refused(
        "[[label]]\nid = \"a\"\n",
        "vedetta.toml:5: label: needs noun = ",
    );
    refused(
        "[[label]]\nprompts = [\"una mela\"]\n",
        "needs an id beside its prompts",
    );
    refused(
        "[[label]]\nid = \"a\"\nprompts = []\n",
        "must have 1 to 32 entries",
    );
    refused(
        "[[label]]\nnoun = \"a\"\nprompts = [\"b\"]\n",
        "exclude each other",
    );
    refused(
        "[[label]]\nnoun = \"  \"\n",
        "must be one line of 1 to 256 characters",
    );
}

#[test]
fn a_table_where_a_list_belongs_is_explained() {
    let found = errors("[camera]\n[[label]]\nnoun = \"mela\"\n");
    assert_eq!(
        found,
        ["vedetta.toml:1: camera: is a list: write [[camera]] instead of [camera]"]
    );
    refused(
        "[[mqtt]]\n",
        "is one table: write [mqtt] instead of [[mqtt]]",
    );
    refused(
        "[mqtt]\ntls = true\n",
        "mqtt.tls = true: is a table: write [mqtt.tls]",
    );
}

#[test]
fn an_empty_file_says_what_to_add() {
    let found = errors("");
    assert!(
        found[0].starts_with("vedetta.toml: has no label: add [[label]]"),
        "{found:?}"
    );
    assert!(
        found[1].starts_with("vedetta.toml: has no camera: add [[camera]]"),
        "{found:?}"
    );
}

#[test]
fn syntax_errors_are_reported_by_line() {
    let found = errors("device = \n[mqtt\nhost = \"a\"\nhost = \"b\"\n");
    assert!(
        found[0].starts_with("vedetta.toml:1: this is not TOML: "),
        "{found:?}"
    );
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("vedetta.toml:2: ")),
        "{found:?}"
    );
    let found = errors("[mqtt]\nhost = \"a\"\nhost = \"b\"\n");
    assert!(
        found
            .iter()
            .any(|line| line.contains(":3: ") && line.contains("duplicate")),
        "{found:?}"
    );
}

#[test]
fn an_error_in_an_override_names_the_override() {
    let error = |sets: &[&str]| parse_with(MINIMAL, sets).unwrap_err().to_string();
    let expected = "--set mqtt.port: mqtt.port = 0: must be 1 to 65535";
    assert_eq!(error(&["mqtt.port=0"]), expected);
    assert!(
        error(&["mqtt.hots=a"]).starts_with("--set mqtt.hots: mqtt.hots: unknown key; did you")
    );
    assert!(error(&["mqtt.host"]).contains("must be key=value"));
    assert!(error(&["mqtt..host=a"]).contains("must be a dotted key"));
    assert!(error(&["camera.7.name=a"]).contains("camera.7: there is no such entry"));
    assert!(error(&["camera.0.device.x=a"]).contains("is a value, not a table"));
    let mut environment = environment();
    environment
        .variables
        .insert("VEDETTA__MQTT__PORT".into(), "x".into());
    let found = Config::from_toml(MINIMAL, "vedetta.toml", &[], &environment).unwrap_err();
    let expected = "VEDETTA__MQTT__PORT: mqtt.port = \"x\": must be a whole number, 0 or more";
    assert_eq!(found.to_string(), expected);
}

#[test]
fn login_and_tls_files_go_together() {
    refused(
        "[mqtt]\npassword = \"x\"\n",
        "mqtt.password: needs mqtt.username beside it",
    );
    refused(
        "[mqtt.tls]\ncert_file = \"a\"\n",
        "needs key_file beside it",
    );
    let login = "[mqtt]\nusername = \"a\"\npassword_file";
    refused(
        &format!("{login} = \"/nowhere/password\"\n"),
        "cannot read /nowhere/password",
    );
    refused(
        &format!("{login} = \"credential:x\"\n"),
        "LoadCredential=x:/path",
    );
    refused(
        &format!("{login} = \"credential:../x\"\n"),
        "where NAME has no '/'",
    );
    let both = "[mqtt]\nusername = \"a\"\npassword = \"b\"\npassword_file = \"c\"\n";
    refused(both, "exclude each other");
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated() {
    for sets in [
        &["mqtt.username=a", "mqtt.password=s3gret-o"][..],
        &["mqtt.password:s3gret-o"],
    ] {
        let error = parse_with(MINIMAL, sets).unwrap_err().to_string();
        assert!(!error.contains("s3gret-o"), "{error}");
    }
    let error = parse_with(MINIMAL, &["mqtt.username=a", "mqtt.password=s3gret-o"]).unwrap_err();
    let message = &error.problems[0].message;
    assert!(
        message.contains("process list") && message.contains("password_file"),
        "{message}"
    );
}

#[test]
fn a_password_file_is_small_text() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let text = format!(
        "[mqtt]\nusername = \"a\"\npassword_file = {:?}\n",
        file.display().to_string()
    );
    std::fs::write(&file, vec![b'x'; 4097]).unwrap();
    refused(&text, "must be text of at most 4096 bytes");
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    refused(&text, "must be text of at most 4096 bytes");
    std::fs::write(&file, "\n").unwrap();
    refused(&text, "is empty");
}

#[test]
fn hosts_and_topics_are_checked() {
    refused(
        "[mqtt]\nhost = \"mqtt://broker\"\n",
        "without mqtt:// and without a port",
    );
    refused(
        "[mqtt]\nhost = \"broker:1883\"\n",
        "without mqtt:// and without a port",
    );
    assert!(parse(&format!("{MINIMAL}[mqtt]\nhost = \"fe80::1\"\n")).is_ok());
    refused(
        "[mqtt]\ntopic_prefix = \"a/#\"\n",
        "1 to 4 levels divided by '/'",
    );
    refused(
        "[mqtt]\ntopic_prefix = \"a/b/c/d/e\"\n",
        "1 to 4 levels divided by '/'",
    );
    refused(
        "[mqtt]\ncommands = [\"reboot\"]\n",
        "must be one of \"snapshot\"",
    );
}

#[test]
fn keys_that_belong_to_the_other_source_are_refused() {
    let camera = |keys: &str| errors(&MINIMAL.replace("device =", &format!("{keys}\ndevice =")));
    assert!(camera("replay = \"foto\"")[0].contains("device and replay exclude each other"));
    assert!(camera("repeat = true")[0].contains("only goes with replay"));
    let replay = |keys: &str| {
        let text = MINIMAL.replace(
            "device = \"/dev/video0\"",
            &format!("replay = \"f\"\n{keys}"),
        );
        errors(&text)
    };
    for key in ["size = [640, 480]", "frozen_after_s = 60"] {
        assert!(replay(key)[0].contains("only goes with device"));
    }
    let slow = "rate_fps = 0.1\nstall_after_s = 5";
    assert!(replay(slow)[0].contains("must be more than the 10 s between two images"));
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let load = |path: &Path| {
        Config::load(path, &[], &environment())
            .unwrap_err()
            .to_string()
    };
    assert!(load(Path::new("/nowhere/vedetta.toml")).contains("cannot be read: No such file"));
    assert!(load(Path::new("/")).contains("cannot be read: Is a directory"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vedetta.toml");
    std::fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(load(&file).contains("is larger than 1048576 bytes"));
    std::fs::write(&file, b"# a\n\xff").unwrap();
    assert!(load(&file).contains("is not UTF-8 text in line 2"));
    std::fs::write(&file, MINIMAL).unwrap();
    assert!(Config::load(&file, &[], &environment()).is_ok());
}

#[test]
fn the_exit_code_is_ex_config() {
    assert_eq!(ConfigError::EXIT_CODE, 78);
}
