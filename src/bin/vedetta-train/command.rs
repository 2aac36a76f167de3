//! The command as a manifest says it: every option that was given, and no place on the machine it ran on.

use std::any::TypeId;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

/// Options that do not change what is made.
const SILENT: [&str; 3] = ["resume", "force", "cache"];

/// The subcommand of `program` that was given, in the order of its options; places are called as the
/// help calls them. The seed is said even where it is the usual one.
pub fn given(program: &Command, matches: &ArgMatches) -> String {
    let mut words = vec!["vedetta-train".to_owned()];
    if let Some((name, matches)) = matches.subcommand() {
        words.push(name.to_owned());
        let options = program.find_subcommand(name);
        for option in options.iter().flat_map(|command| command.get_arguments()) {
            let id = option.get_id().as_str();
            let typed = matches.value_source(id) == Some(ValueSource::CommandLine);
            if (typed || id == "seed") && !SILENT.contains(&id) {
                words.extend(option.get_long().map(|long| format!("--{long}")));
                words.extend(values(option, matches));
            }
        }
    }
    words.join(" ")
}

fn values(option: &Arg, matches: &ArgMatches) -> Vec<String> {
    if !option.get_action().takes_values() {
        return Vec::new();
    }
    if option.get_value_parser().type_id() == TypeId::of::<PathBuf>() {
        let names = option.get_value_names().unwrap_or_default().iter();
        return names.map(ToString::to_string).collect();
    }
    let values = matches.get_raw(option.get_id().as_str());
    let values = values.into_iter().flatten();
    let values: Vec<String> = values.map(|v| v.to_string_lossy().into_owned()).collect();
    match option.get_value_delimiter() {
        Some(delimiter) => vec![values.join(&delimiter.to_string())],
        None => values,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Cli;

    fn said(line: &str) -> String {
        let words = line.split(' ');
        let matches = Cli::command().try_get_matches_from(words).unwrap();
        given(&Cli::command(), &matches)
    }

    #[test]
    fn every_option_is_said_and_no_place() {
        assert_eq!(
            said(
                "vedetta-train fit /home/a/b -o /srv/c --data=/mnt/d --stage full --resume --tower \
                 image --rate 1e-4 --epochs 7 --loss infonce,mse=0.5 --cache /tmp/e --force"
            ),
            "vedetta-train fit BUNDLE --output DIR --data PATH --stage full --epochs 7 --rate 1e-4 \
             --tower image --loss infonce,mse=0.5 --seed 1"
        );
        let preset = said("vedetta-train fit b -o c --data d --stage full --preset clip-italian");
        assert!(preset.contains("--preset clip-italian"), "{preset}");
        let distilled = said("vedetta-train distill b -o c --data d --vit 8x1x2/16 --seed 3");
        assert!(
            distilled.contains("--vit 8x1x2/16") && distilled.ends_with("--seed 3"),
            "{distilled}"
        );
    }
}
