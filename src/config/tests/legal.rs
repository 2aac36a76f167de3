use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::{
    BaselineRule, CommandName, Config, Id, Loaded, MqttVersion, Probability, PromptSource, Rule,
    Shape, Source,
};
use super::{MINIMAL, environment, parse, parse_with};
use crate::encoder::Backend;
use crate::frame::PixelFormat;

#[test]
fn a_camera_and_a_label_are_enough() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.device.as_str(), "vedetta");
    assert_eq!(config.model.threads, NonZeroUsize::new(3).unwrap());
    assert_eq!(config.model.backend, Backend::Auto);
    assert_eq!(config.mqtt.client_id, "vedetta-vedetta");
    assert_eq!(
        (config.mqtt.host.as_str(), config.mqtt.port),
        ("localhost", 1883)
    );
    assert_eq!(config.labels[0].id.as_str(), "scaffale-vuoto");
    let zone = &config.cameras[0].zones[0];
    assert_eq!((zone.id.as_str(), &zone.shape), ("camera", &Shape::Full));
    assert_eq!(zone.labels, [0]);
    assert_eq!(config.labels[0].rule, Rule::default());
    let Rule { enter, leave, .. } = config.labels[0].rule;
    assert_eq!((enter.get(), leave.get()), (0.7, 0.5));
}

const FULL: &str = r#"
device = "negozio-1"
log_level = "debug"

[model]
bundle = "clip"
calibration = "frutta.toml"
threads = 2
backend = "cpu"

[decision]
enter = 0.8
leave = 0.6
dwell_s = 1.5
window = 3

[mqtt]
host = "broker.local"
version = "3.1.1"
topic_prefix = "bottega/sensori"
discovery = false
evidence = true
commands = ["pause", "snapshot"]
[mqtt.tls]
ca_file = "ca.pem"
cert_file = "client.pem"
key_file = "/keys/client.key"

[[label]]
noun = "una mela"
group = "frutta"
enter = 0.5

[[label]]
id = "pera"
prompts = ["una pera", "una pera verde"]
group = "frutta"
leave = 0.1

[[camera]]
id = "ingresso"
device = "/dev/v4l/by-id/usb"
format = "mjpeg"
size = [1280, 720]
frozen_after_s = 90
baseline = { enabled = true, deviations = 3 }

[[camera.zone]]
id = "banco"
rectangle = [0.1, 0.2, 0.9, 0.8]
labels = ["pera"]

[[camera.zone]]
id = "cassa"
polygon = [[0, 0], [1, 0], [0.5, 1]]

[[camera]]
id = "foto"
replay = "foto"
rate_fps = 0.1
repeat = false
"#;

#[test]
fn every_part_of_a_full_configuration_arrives() {
    let sets = ["mqtt.port=8884"].map(str::to_owned);
    let name = "/etc/vedetta/vedetta.toml";
    let config = Config::from_toml(FULL, name, &sets, &environment()).unwrap();
    assert_eq!(config.model.bundle, Path::new("/etc/vedetta/clip"));
    assert_eq!(config.model.backend, Backend::Cpu);
    let calibration = config.model.calibration.as_deref();
    assert_eq!(calibration, Some(Path::new("/etc/vedetta/frutta.toml")));
    let mqtt = &config.mqtt;
    assert_eq!((mqtt.version, mqtt.port), (MqttVersion::V311, 8884));
    assert_eq!(mqtt.discovery_prefix, None);
    assert_eq!(mqtt.commands, [CommandName::Pause, CommandName::Snapshot]);
    let tls = mqtt.tls.as_ref().unwrap();
    assert_eq!(tls.ca_file, Path::new("/etc/vedetta/ca.pem"));
    let pair = ("/etc/vedetta/client.pem".into(), "/keys/client.key".into());
    assert_eq!(tls.client, Some(pair));

    let rule = |index: usize| config.labels[index].rule;
    assert_eq!(config.labels[0].id.as_str(), "mela");
    assert_eq!(
        config.labels[0].prompts,
        PromptSource::Noun("una mela".into())
    );
    assert_eq!(rule(0).enter.get(), 0.5);
    assert_eq!(
        rule(0).leave.get(),
        0.3,
        "the common leave lies over this enter"
    );
    assert_eq!((rule(1).enter.get(), rule(1).leave.get()), (0.8, 0.1));
    assert_eq!(
        (rule(1).dwell, rule(1).window),
        (Duration::from_millis(1500), 3)
    );
    assert_eq!(config.labels[1].group, Id::new("frutta"));

    let [shop, photos] = &config.cameras[..] else {
        panic!("two cameras");
    };
    let device = Source::V4l2 {
        device: PathBuf::from("/dev/v4l/by-id/usb"),
        format: Some(PixelFormat::Mjpeg),
        size_px: Some((1280, 720)),
    };
    assert_eq!(shop.source, device);
    assert_eq!(shop.zones[0].labels, [1]);
    assert_eq!(shop.frozen_after, Some(Duration::from_secs(90)));
    assert_eq!(photos.frozen_after, None);
    let usual = BaselineRule {
        deviations: 3.0,
        forget_after: Duration::from_secs(3600),
    };
    assert_eq!((shop.baseline, photos.baseline), (Some(usual), None));
    assert_eq!(shop.zones[1].labels, [0, 1]);
    assert!(matches!(&shop.zones[1].shape, Shape::Polygon(corners) if corners.len() == 3));
    let replay = Source::Replay {
        folder: PathBuf::from("/etc/vedetta/foto"),
        rate_fps: 0.1,
        repeat: false,
    };
    assert_eq!(photos.source, replay);
    assert_eq!(
        photos.stall_after,
        Duration::from_secs(30),
        "three images late"
    );
    assert_eq!(photos.zones[0].id.as_str(), "foto");
}

#[test]
fn the_effective_configuration_gives_the_same_again() {
    for text in [MINIMAL, FULL] {
        let config = parse(text).unwrap();
        let again = parse(&config.to_toml()).unwrap();
        assert_eq!(again, config);
    }
}

#[test]
fn variables_override_the_file_and_set_overrides_both() {
    let mut environment = environment();
    let variables = [
        ("VEDETTA__MQTT__HOST", "from-variable"),
        ("VEDETTA__MQTT__PORT", "1999"),
        ("VEDETTA__MQTT__USERNAME", ""),
        ("VEDETTA__CAMERA__INGRESSO__RATE_FPS", "7"),
        ("VEDETTA__LABEL__0__ENTER", "0.9"),
        ("VEDETTA_MODELS", "/nowhere"),
    ];
    let owned = variables.map(|(key, value)| (key.to_owned(), value.to_owned()));
    environment.variables.extend(owned);
    let sets = ["mqtt.host=from-set", "camera.1.name=12"].map(str::to_owned);
    let config = Config::from_toml(FULL, "vedetta.toml", &sets, &environment).unwrap();
    assert_eq!(
        (config.mqtt.host.as_str(), config.mqtt.port),
        ("from-set", 1999)
    );
    assert_eq!(
        config.mqtt.credentials, None,
        "an empty variable is not set"
    );
    assert_eq!(config.cameras[0].rate_fps, 7.0);
    assert_eq!(config.labels[0].rule.enter.get(), 0.9);
    assert_eq!(
        config.cameras[1].name, "12",
        "a number is text where text is wanted"
    );
}

#[test]
fn overrides_alone_can_be_the_whole_configuration() {
    let sets = [
        "camera.0.replay=foto",
        "label.0.noun=mela",
        "label.1.noun=pera",
    ];
    let config = parse_with("", &sets).unwrap();
    assert_eq!(config.labels.len(), 2);
    let folder = match &config.cameras[0].source {
        Source::Replay { folder, .. } => folder,
        Source::V4l2 { .. } => panic!("a replay"),
    };
    assert_eq!(
        folder,
        Path::new("/nowhere/foto"),
        "starts at the working directory"
    );
}

#[test]
fn a_password_comes_from_a_file_or_a_credential_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mqtt-password");
    std::fs::write(&file, "s3gret-o\n").unwrap();
    let mut environment = environment();
    let directory = folder.path().display().to_string();
    let credentials = ("CREDENTIALS_DIRECTORY".to_owned(), directory);
    environment.variables.extend([credentials]);
    for path in [
        file.display().to_string(),
        "credential:mqtt-password".into(),
    ] {
        let text = format!("{MINIMAL}[mqtt]\nusername = \"anna\"\npassword_file = \"{path}\"\n");
        let config = Config::from_toml(&text, "vedetta.toml", &[], &environment).unwrap();
        assert_eq!(
            config.mqtt.credentials.as_ref().unwrap().password,
            "s3gret-o"
        );
        for shown in [config.to_toml(), format!("{config:?}")] {
            assert!(!shown.contains("s3gret-o"));
            assert!(shown.contains("anna"));
        }
    }
}

#[test]
fn a_password_in_clear_works_and_is_warned_about() {
    let text = format!("{MINIMAL}[mqtt]\nusername = \"anna\"\npassword = \"s3gret-o\"\n");
    let loaded = Loaded::parse(&text, "vedetta.toml", &[], &environment()).unwrap();
    let warning = loaded.warnings[0].to_string();
    assert!(
        warning.starts_with("vedetta.toml:7: mqtt.password: stands in clear"),
        "{warning}"
    );
    assert!(!warning.contains("s3gret-o"));

    let mut environment = environment();
    let password = ("VEDETTA__MQTT__PASSWORD".to_owned(), "1234".to_owned());
    environment.variables.extend([password]);
    let sets = ["mqtt.username=anna".to_owned()];
    let loaded = Loaded::parse(MINIMAL, "vedetta.toml", &sets, &environment).unwrap();
    assert_eq!(loaded.warnings, [], "a variable is private to the process");
    assert_eq!(loaded.config.mqtt.credentials.unwrap().password, "1234");
}

#[test]
fn a_password_that_everybody_can_read_is_warned_about() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vedetta.toml");
    let text = format!("{MINIMAL}[mqtt]\nusername = \"anna\"\npassword = \"s3gret-o\"\n");
    std::fs::write(&file, text).unwrap();
    for (mode, said) in [
        (0o644, "everybody on this machine"),
        (0o640, "stands in clear"),
    ] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let loaded = Loaded::read(&file, &[], &environment()).unwrap();
        assert!(
            loaded.warnings[0].message.contains(said),
            "{mode:o}: {:?}",
            loaded.warnings
        );
    }
}

#[test]
fn the_host_name_becomes_a_legal_device_id() {
    let mut environment = environment();
    environment.hostname = "Jetson_Nano.local".into();
    let config = Config::from_toml(MINIMAL, "vedetta.toml", &[], &environment).unwrap();
    assert_eq!(config.device.as_str(), "jetson-nano-local");
}

#[test]
fn tls_moves_the_default_port_and_trusts_the_system() {
    let config = parse(&format!("{MINIMAL}[mqtt.tls]\n")).unwrap();
    assert_eq!(config.mqtt.port, 8883);
    let ca_file = config.mqtt.tls.unwrap().ca_file;
    assert_eq!(ca_file, Path::new("/etc/ssl/certs/ca-certificates.crt"));
}

#[test]
fn a_leave_threshold_made_for_an_enter_threshold_can_be_reached() {
    for percent in 0..=100_u8 {
        let enter = Probability::new(f32::from(percent) / 100.0).unwrap();
        let leave = Rule::leave_for(enter);
        assert!(leave <= enter);
        assert!(leave.get() > 0.0 || percent == 0);
    }
}
