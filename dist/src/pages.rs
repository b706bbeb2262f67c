//! Man pages and completions, from the agent's own command line.

use anyhow::Result;
use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use nitro_user::cli::Cli;

use crate::Product;

/// `nitro-agent(1)` and one page for each subcommand.
pub fn manual() -> Result<Vec<Product>> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = vec![page(command.clone())?];
    for subcommand in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        let name = format!("nitro-agent-{}", subcommand.get_name());
        let page_name: &'static str = name.clone().leak();
        pages.push(page(subcommand.clone().name(page_name).display_name(name))?);
    }
    Ok(pages)
}

fn page(command: Command) -> Result<Product> {
    let name = command.get_name().to_owned();
    let version = concat!("nitro-agent ", env!("CARGO_PKG_VERSION"));
    let mut text = Vec::new();
    // The same whenever it is made.
    Man::new(command)
        .date("")
        .source(version)
        .manual("nitro-agent")
        .render(&mut text)?;
    Ok(Product::new(format!("man/{name}.1"), text))
}

/// For bash, zsh and fish.
pub fn completions() -> Vec<Product> {
    let shells = [
        (Shell::Bash, "nitro-agent.bash"),
        (Shell::Zsh, "_nitro-agent"),
        (Shell::Fish, "nitro-agent.fish"),
    ];
    let made = shells.map(|(shell, file)| {
        let mut text = Vec::new();
        generate(shell, &mut Cli::command(), "nitro-agent", &mut text);
        Product::new(format!("completions/{file}"), text)
    });
    made.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn every_subcommand_has_a_page_and_every_flag_is_in_it() {
        let pages = manual().unwrap();
        let text = |name: &str| {
            let page = pages.iter().find(|page| page.name == format!("man/{name}.1"));
            String::from_utf8(page.unwrap_or_else(|| panic!("no page {name}")).bytes.clone()).unwrap()
        };
        let top = text("nitro-agent").replace('\\', "");
        for flag in Cli::command().get_arguments().filter_map(clap::Arg::get_long) {
            assert!(top.contains(&format!("--{flag}")), "{flag}");
        }
        for command in Cli::command().get_subcommands().filter(|one| !one.is_hide_set()) {
            let page = text(&format!("nitro-agent-{}", command.get_name()));
            assert!(page.contains("Examples"), "{page}");
        }
    }

    #[test]
    fn completions_know_the_subcommands() {
        for made in completions() {
            let text = String::from_utf8(made.bytes).unwrap();
            assert!(text.contains("status") && text.contains("loads"), "{}", made.name);
        }
    }
}
