//! The project's own commands, run as `cargo xtask COMMAND`. What is public here is what `bench`
//! shares with them.

mod apt;
mod architecture;
pub mod build_ebpf;
pub mod cargo;
mod demo;
mod digest;
mod emulated_test;
mod emulator;
mod fuzz;
mod git;
mod image;
mod install_test;
mod package;
mod process;
mod release;
mod repository;
mod soak;
pub mod steps;
mod test;
mod toolchain;
mod tools;
pub mod vm;

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use steps::Steps;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the gateway beside similar programs, or its data paths.
    #[command(disable_help_flag = true)]
    Bench {
        /// What to measure; `--help` tells.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Build the eBPF programs, which the gateway's next build takes in.
    BuildEbpf(build_ebpf::Options),
    /// Show a desktop through the gateway, with a real Spice server and each kind of client.
    Demo(demo::Options),
    /// Run tests with a gateway for another processor, under an emulator.
    EmulatedTest(emulated_test::Options),
    /// Fuzz the parsers and the relay.
    Fuzz(fuzz::Options),
    /// Make an image for containers.
    Image(image::Options),
    /// Install from the repositories with apt and dnf, on a machine of their own.
    InstallTest(install_test::Options),
    /// Make packages for Debian and for Red Hat's systems.
    Package(package::Options),
    /// Make everything that is published of a version: packages, repositories, images and what
    /// belongs to them.
    Release(release::Options),
    /// The second of two builds that `release --verify` compares.
    #[command(hide = true)]
    ReleaseAgain(release::Again),
    /// Make repositories for apt and dnf of packages.
    Repository(repository::Options),
    /// Keep a gateway busy while faults are injected all around it.
    Soak(soak::Options),
    /// Check everything that must hold before a change lands.
    Test,
    /// Run tests inside virtual machines with other kernels.
    VmTest(vm::Options),
}

/// Runs the command that was given, and tells whether it succeeded.
pub fn main() -> ExitCode {
    let mut steps = Steps::default();
    let done = match Arguments::parse().command {
        Command::Bench { arguments } => bench(&arguments),
        Command::BuildEbpf(options) => build_ebpf::run(&mut steps, &options),
        Command::Demo(options) => demo::run(&mut steps, &options),
        Command::EmulatedTest(options) => emulated_test::run(&mut steps, &options),
        Command::Fuzz(options) => fuzz::run(&mut steps, &options),
        Command::Image(options) => image::run(&mut steps, &options),
        Command::InstallTest(options) => install_test::run(&mut steps, &options),
        Command::Package(options) => package::run(&mut steps, &options).map(drop),
        Command::Release(options) => release::run(&mut steps, &options),
        Command::ReleaseAgain(options) => release::make_again(&mut steps, &options),
        Command::Repository(options) => repository::run(&mut steps, &options),
        Command::Soak(options) => soak::run(&mut steps, &options),
        Command::Test => test::run(&mut steps),
        Command::VmTest(options) => vm::run(&mut steps, &options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            steps.failed(&error);
            ExitCode::FAILURE
        }
    }
}

/// Becomes the program that measures: a crate of its own, so that no other command builds it.
fn bench(arguments: &[OsString]) -> Result<()> {
    let mut command = cargo::command(&["run", "--quiet", "--package", "bench", "--"]);
    command.args(arguments).current_dir(env::current_dir()?);
    Err(command.exec()).context("starting cargo")
}
