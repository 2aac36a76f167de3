use super::*;

const NOW: &str = "2026-10-02T09:14:05Z";

fn live(zones: usize) -> Live {
    let mut live = Live::new("vedetta");
    live.hear("vedetta/negozio/status", b"online");
    live.hear("vedetta/negozio/camera/c1/status", b"stalled");
    live.hear("vedetta/negozio/config/mela/prompt", b"una mela verde");
    live.hear("vedetta/negozio/config/mela/threshold", b"0.7");
    for zone in 0..zones {
        let topic = format!("vedetta/negozio/zone/z{zone:03}/mela");
        live.hear(&format!("{topic}/state"), b"ON");
        let numbers = br#"{"probability":0.5,"margin":0.3,"since":"2026-10-02T09:13:20Z"}"#;
        live.hear(&format!("{topic}/attributes"), numbers);
    }
    live
}

fn text(live: &Live, columns: usize, rows: usize, picture: Vec<Line>) -> Vec<String> {
    let now = NOW.parse().unwrap();
    let footer = vec![Line::of(Style::Plain, "the end")];
    let heading = vec![Line::of(Style::Strong, "heading")];
    let page = Page {
        live,
        heading,
        picture,
        footer,
        now,
    };
    page.lines(Size { columns, rows })
        .iter()
        .map(Line::text)
        .collect()
}

#[test]
fn a_row_shows_prompt_bar_threshold_number_state_and_age() {
    let lines = text(&live(1), 80, 24, Vec::new());
    let row = lines
        .iter()
        .find(|line| line.contains("una mela verde"))
        .unwrap();
    let bar = format!("{}{}", "█".repeat(16), "·".repeat(6) + "┊" + &"·".repeat(9));
    assert_eq!(
        row.trim_end(),
        format!("una mela verde {bar}  50 % ● ON          45 s")
    );
}

#[test]
fn a_page_fits_any_terminal() {
    let picture = vec![Line::of(Style::Plain, "▀".repeat(20)); 10];
    for (columns, rows) in [(1, 1), (20, 5), (40, 10), (80, 24), (250, 70)] {
        for zones in [0, 1, 500] {
            let lines = text(&live(zones), columns, rows, picture.clone());
            assert_eq!(lines.len(), rows);
            assert!(lines.iter().all(|line| line.chars().count() <= columns));
        }
    }
}

#[test]
fn what_does_not_fit_is_counted_and_the_newest_messages_stay() {
    let lines = text(&live(100), 80, 24, Vec::new());
    assert!(
        lines.iter().any(|line| line.starts_with("… and ")),
        "{lines:#?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.contains("z099/mela/state  ON"))
    );
    assert_eq!(lines.last().unwrap(), "the end");
}

#[test]
fn what_is_off_is_left_out_first() {
    let mut live = live(12);
    for zone in 0..11 {
        live.hear(
            &format!("vedetta/negozio/zone/z{zone:03}/mela/state"),
            b"OFF",
        );
    }
    let lines = text(&live, 80, 20, Vec::new());
    assert!(lines.iter().any(|line| line.contains("● ON")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("… and 11 more")));
}

#[test]
fn the_picture_stands_left_of_the_table_when_there_is_room() {
    let picture = vec![Line::of(Style::Plain, "#".repeat(20)); 4];
    let wide = text(&live(1), 80, 24, picture.clone());
    assert!(
        wide.iter()
            .any(|line| line.starts_with("####") && line.contains("una mela"))
    );
    let narrow = text(&live(1), 50, 24, picture);
    assert!(!narrow.iter().any(|line| line.contains('#')));
}

#[test]
fn an_age_is_short_and_never_negative() {
    let age = |since: &str| age(since.parse().unwrap(), NOW.parse().unwrap());
    assert_eq!(age("2026-10-02T09:14:00Z"), "5 s");
    assert_eq!(age("2026-10-02T09:00:00Z"), "14 min");
    assert_eq!(age("2026-10-01T09:00:00Z"), "24 h");
    assert_eq!(age("2026-09-02T09:00:00Z"), "30 d");
    assert_eq!(age("2026-10-02T09:15:00Z"), "");
}
