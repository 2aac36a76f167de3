use std::convert::Infallible;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::symlink;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};
use proptest::prelude::*;

use super::*;

fn png(shade: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    RgbImage::from_pixel(8, 8, Rgb([shade, 0, 0]))
        .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
        .unwrap();
    bytes
}

/// Writes `files`, folders included; an empty content stands for a photo.
fn lay(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (index, (name, content)) in files.iter().enumerate() {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if content.is_empty() {
            fs::write(path, png(u8::try_from(index).unwrap())).unwrap();
        } else {
            fs::write(path, content).unwrap();
        }
    }
    folder
}

fn open(folder: &Path) -> Dataset {
    Dataset::open(folder, &Options::default()).unwrap_or_else(|e| panic!("{e:#}"))
}

fn refused(folder: &Path, options: &Options) -> String {
    format!("{:#}", Dataset::open(folder, options).unwrap_err())
}

fn nouns(dataset: &Dataset) -> Vec<&str> {
    dataset.classes.iter().map(|c| c.noun.as_str()).collect()
}

fn names(dataset: &Dataset) -> Vec<&str> {
    dataset.items.iter().map(|i| i.name.as_str()).collect()
}

fn reasons(dataset: &Dataset) -> String {
    let lines = dataset.skipped.first().iter();
    lines
        .map(|s| format!("{}: {}\n", s.name, s.reason))
        .collect()
}

#[test]
fn folders_are_classes_named_after_themselves() {
    let folder = lay(&[
        ("mela-verde/1.jpg", ""),
        ("scaffale_vuoto/a.PNG", ""),
        ("scaffale_vuoto/ieri/b.jpeg", ""),
        ("scaffale_vuoto/nota.txt", "x"),
        (".cache/1.jpg", ""),
        ("sola.jpg", ""),
    ]);
    let dataset = open(folder.path());
    assert_eq!(dataset.format, Format::Folders);
    assert_eq!(nouns(&dataset), ["mela verde", "scaffale vuoto"]);
    let expected = [
        "mela-verde/1.jpg",
        "scaffale_vuoto/a.PNG",
        "scaffale_vuoto/ieri/b.jpeg",
    ];
    assert_eq!(names(&dataset), expected);
    assert_eq!(dataset.per_class(), [1, 2]);
    assert_eq!(dataset.skipped.count(), 2, "{}", reasons(&dataset));
}

#[test]
fn a_list_of_names_renames_joins_and_reaches_inner_folders() {
    let folder = lay(&[
        (
            "nomi.csv",
            "cartella,nome\nA/rosse,una mela\nB,\"una mela\"\nC,pere\nZ,kiwi\n",
        ),
        ("A/rosse/1.jpg", ""),
        ("A/verdi/1.jpg", ""),
        ("B/1.jpg", ""),
        ("C/1.jpg", ""),
    ]);
    let dataset = open(folder.path());
    assert_eq!(nouns(&dataset), ["A", "una mela", "pere"]);
    assert_eq!(dataset.per_class(), [1, 2, 1]);
    assert!(reasons(&dataset).contains("Z: "), "{}", reasons(&dataset));
}

#[test]
fn a_wrong_list_of_names_is_refused_with_its_line() {
    for (list, expected) in [
        ("A\tmela\tpera\n", "line 1"),
        ("folder\tname\nA\n", "line 2"),
        ("A\tmela\nA\tpera\n", "A has a name already"),
        ("../A\tmela\n", "leads out"),
        ("A\tme\u{200B}la\n", "U+200B"),
    ] {
        let folder = lay(&[("names.tsv", list), ("A/1.jpg", "")]);
        let error = refused(folder.path(), &Options::default());
        assert!(error.contains(expected), "{list:?}: {error}");
    }
    let folder = lay(&[("---/1.jpg", "")]);
    let error = refused(folder.path(), &Options::default());
    assert!(error.contains("names.tsv"), "{error}");
}

#[test]
fn tables_of_captions_are_read_in_every_form() {
    let rows = [
        (
            "didascalie.tsv",
            "image\tcaption\n1.jpg\tuna \"mela\" rossa\n./1.jpg\tun frutto\n2.jpg\tuna pera\n",
        ),
        (
            "c.csv",
            "Caption_1,File,caption_2\n\"una \"\"mela\"\" rossa\",1.jpg,un frutto\nuna pera,2.jpg,\n",
        ),
        (
            "c.jsonl",
            "{\"image\":\"1.jpg\",\"captions\":[\"una \\\"mela\\\" rossa\",\"un frutto\"]}\n\n{\"file\":\"2.jpg\",\"caption\":\"una pera\"}\n",
        ),
    ];
    for (list, content) in rows {
        let folder = lay(&[(list, content), ("1.jpg", ""), ("images/2.jpg", "")]);
        for path in [folder.path().to_owned(), folder.path().join(list)] {
            let dataset = open(&path);
            assert_eq!(dataset.format, Format::Captions, "{list}");
            assert_eq!(names(&dataset), ["1.jpg", "images/2.jpg"]);
            assert_eq!(
                dataset.items[0].captions,
                ["una \"mela\" rossa", "un frutto"]
            );
            assert_eq!(dataset.items[1].captions, ["una pera"]);
            assert_eq!(dataset.skipped.count(), 0, "{}", reasons(&dataset));
        }
    }
}

#[test]
fn no_list_leads_out_of_its_folder() {
    let outside = lay(&[("secret.png", "")]);
    let secret = outside.path().join("secret.png");
    let list = format!(
        "image\tcaption\n{}\tx\n../secret.png\tx\nlink.png\tx\nnone.png\tx\n..\\secret.png\tx\ngood.png\tx\n",
        secret.display()
    );
    let folder = lay(&[("c.tsv", &list), ("good.png", "")]);
    symlink(&secret, folder.path().join("link.png")).unwrap();
    let dataset = open(folder.path());
    assert_eq!(names(&dataset), ["good.png"]);
    let reasons = reasons(&dataset);
    assert_eq!(dataset.skipped.count(), 5, "{reasons}");
    for expected in ["absolute", "leads out", "a link", "no such file"] {
        assert!(reasons.contains(expected), "{reasons}");
    }
}

#[test]
fn links_in_a_class_folder_are_not_followed() {
    let outside = lay(&[("A/secret.png", "")]);
    let folder = lay(&[("A/1.png", "")]);
    symlink(
        outside.path().join("A/secret.png"),
        folder.path().join("A/2.png"),
    )
    .unwrap();
    symlink(outside.path(), folder.path().join("B")).unwrap();
    symlink(folder.path(), folder.path().join("A/around")).unwrap();
    assert_eq!(names(&open(folder.path())), ["A/1.png"]);
}

#[test]
fn coco_finds_photos_beside_the_list_and_in_folders() {
    let list = r#"{"info":{},"images":[{"id":7,"file_name":"a.jpg"},{"id":8,"file_name":"b.jpg"},
        {"id":9,"file_name":"../../c.jpg"},{"id":10,"file_name":"gone.jpg"}],
        "annotations":[{"image_id":7,"id":1,"caption":"una mela"},{"image_id":7,"caption":"un frutto"},
        {"image_id":8,"caption":"una pera"},{"image_id":9,"caption":"x"},{"image_id":99,"caption":"x"}]}"#;
    let folder = lay(&[
        ("annotations/captions_ita.json", list),
        ("train2014/a.jpg", ""),
        ("b.jpg", ""),
    ]);
    let dataset = open(folder.path());
    assert_eq!(dataset.format, Format::Coco);
    assert_eq!(names(&dataset), ["b.jpg", "train2014/a.jpg"]);
    assert_eq!(dataset.items[1].captions, ["una mela", "un frutto"]);
    assert_eq!(dataset.skipped.count(), 2, "{}", reasons(&dataset));
}

#[test]
fn shards_are_read_where_they_lie() {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = tar::Builder::new(fs::File::create(folder.path().join("0.tar")).unwrap());
    let mut put = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    put("a/1.txt", "una mela\nun frutto\n".as_bytes());
    put("a/1.jpg", &png(11));
    put("a/2.png", &png(22));
    put("a/2.json", br#"{"class":"pera","caption":"una pera"}"#);
    put("a/3.txt", b"nothing beside me");
    tar.finish().unwrap();
    let dataset = open(folder.path());
    assert_eq!(names(&dataset), ["0.tar/a/1.jpg", "0.tar/a/2.png"]);
    assert_eq!(dataset.items[0].captions, ["una mela", "un frutto"]);
    assert_eq!(dataset.items[1].class, Some(0));
    assert_eq!(nouns(&dataset), ["pera"]);
    let shade = |item: &Item| photos::read(&item.source).unwrap().get_pixel(0, 0)[0];
    assert_eq!(
        dataset.items.iter().map(shade).collect::<Vec<_>>(),
        [11, 22]
    );
    assert_eq!(dataset.skipped.count(), 1);
}

#[test]
fn damaged_photos_are_skipped_counted_and_named() {
    let folder = lay(&[("A/1.png", ""), ("A/2.png", "no photo"), ("A/3.png", "")]);
    let dataset = open(folder.path());
    let items: Vec<&Item> = dataset.items.iter().collect();
    let work = |index: usize, photo: RgbImage| Ok::<_, Infallible>((index, photo.width()));
    let (made, skipped) = photos::decode(&items, work).unwrap();
    assert_eq!(made, [Some((0, 8)), None, Some((2, 8))]);
    assert_eq!(
        (skipped.count(), skipped.first()[0].name.as_str()),
        (1, "A/2.png")
    );
}

#[test]
fn what_is_no_dataset_says_what_was_looked_for() {
    let empty = tempfile::tempdir().unwrap();
    assert!(refused(empty.path(), &Options::default()).contains("no photo"));
    let captions = Options {
        format: Some(Format::Captions),
        ..Options::default()
    };
    assert!(refused(empty.path(), &captions).contains("`caption`"));
    assert!(refused(Path::new("/nonexistent"), &Options::default()).contains("give a folder"));
    let text = lay(&[("a.doc", "x")]);
    assert!(refused(&text.path().join("a.doc"), &Options::default()).contains(".jsonl"));
}

#[test]
fn nonsense_in_lists_is_refused_or_skipped_but_never_panics() {
    for (name, content) in [
        ("c.tsv", "image\tcaption\n\t\n\0\t\0\nx\n1.jpg\t\u{202E}\n"),
        ("c.csv", "image,caption\n\"1.jpg,\n"),
        (
            "c.jsonl",
            "{\"image\":1}\n[]\n{\"image\":\"1.jpg\",\"captions\":[1,null]}\n{",
        ),
        ("c.json", "{\"images\":[{\"id\":-1}],\"annotations\":[]}"),
        ("d.json", "{\"images\":["),
        ("0.tar", "no tar file at all"),
    ] {
        let folder = lay(&[(name, content), ("1.jpg", "")]);
        let error = refused(folder.path(), &Options::default());
        assert!(!error.is_empty(), "{name}");
    }
}

fn item(name: String, class: Option<usize>) -> Item {
    Item {
        name,
        source: Source::File(PathBuf::new()),
        class,
        captions: Vec::new(),
    }
}

proptest! {
    #[test]
    fn a_split_takes_every_photo_once_and_its_share_of_every_class(
        classes in prop::collection::vec(prop::option::of(0usize..5), 1..120),
        share in 0.0f64..1.0, seed: u64,
    ) {
        let items: Vec<Item> = classes.iter().enumerate()
            .map(|(i, class)| item(format!("{i}.jpg"), *class)).collect();
        let split = Split::new(&items, share, seed);
        let mut all: Vec<usize> = split.train.iter().chain(&split.held_out).copied().collect();
        all.sort_unstable();
        prop_assert_eq!(all, (0..items.len()).collect::<Vec<_>>());
        for class in [None, Some(0), Some(1), Some(2), Some(3), Some(4)] {
            let of = |side: &[usize]| side.iter().filter(|i| items[**i].class == class).count();
            let (train, held) = (of(&split.train), of(&split.held_out));
            if train + held > 1 && share > 0.0 {
                prop_assert!(train > 0 && held > 0);
                let wanted = share * (train + held) as f64;
                prop_assert!((held as f64 - wanted).abs() <= 1.0);
            }
        }
        prop_assert_eq!(split, Split::new(&items, share, seed));
    }

    #[test]
    fn no_path_of_a_list_is_let_out(path in "[a./\\\\ ]{0,12}") {
        if let Ok(inside) = place::inside(&path) {
            prop_assert!(!inside.starts_with('/') && inside.split('/').all(|p| !p.is_empty() && p != ".." ));
        }
    }
}

#[test]
fn another_seed_holds_out_other_photos() {
    let items: Vec<Item> = (0..40)
        .map(|i| item(format!("{i}.jpg"), Some(i % 2)))
        .collect();
    assert_ne!(Split::new(&items, 0.3, 1), Split::new(&items, 0.3, 2));
    assert!(Split::new(&items, 0.0, 1).held_out.is_empty());
}

#[test]
fn copies_of_what_is_learnt_from_are_not_held_out() {
    let folder = lay(&[
        ("A/1.png", ""),
        ("A/2.png", ""),
        ("A/3.png", ""),
        ("A/4.png", ""),
    ]);
    for copy in ["5", "6", "7"] {
        let place = folder.path().join("A");
        fs::copy(place.join("1.png"), place.join(format!("{copy}.png"))).unwrap();
    }
    let dataset = open(folder.path());
    for seed in 0..20 {
        let mut skipped = Skips::default();
        let mut split = dataset.split(0.4, seed);
        dataset.drop_copies(&mut split, &mut skipped);
        assert_eq!(
            split.train.len() + split.held_out.len() + skipped.count(),
            7
        );
        let bytes = |index: &usize| photos::bytes(&dataset.items[*index].source).unwrap();
        let learnt: Vec<Vec<u8>> = split.train.iter().map(bytes).collect();
        assert!(
            split
                .held_out
                .iter()
                .all(|index| !learnt.contains(&bytes(index)))
        );
    }
}

#[test]
fn a_long_caption_is_cut_and_not_left_out() {
    let long = "una mela rossa ".repeat(100);
    let list = format!("image\tcaption\n1.jpg\t{long}\n2.jpg\t{}\n", &long[..600]);
    let folder = lay(&[("didascalie.tsv", &list), ("1.jpg", ""), ("2.jpg", "")]);
    let dataset = open(folder.path());
    assert_eq!(dataset.skipped.count(), 0);
    let caption = |item: usize| dataset.items[item].captions[0].as_str();
    assert_eq!(caption(0), long[..MAX_CAPTION_CHARS].trim_end());
    assert_eq!(caption(1), long[..600].trim_end());
}

#[test]
fn what_two_passes_skip_is_counted_once_and_beyond_what_is_listed() {
    let pass = || {
        let mut skips = Skips::default();
        for photo in 0..MAX_REMEMBERED + 500 {
            skips.add(format!("{photo}.jpg"), "not a photo");
        }
        skips
    };
    let mut skips = pass();
    skips.merge(&pass());
    skips.add("0.jpg", "not a photo either");
    assert_eq!(skips.count(), MAX_REMEMBERED + 500);
    assert_eq!(skips.first().len(), MAX_REMEMBERED);
    let mut both = Skips::default();
    both.merge(&skips);
    assert_eq!(both, skips);
}
