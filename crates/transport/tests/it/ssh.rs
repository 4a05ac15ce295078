//! Links through a stand-in for ssh: a script that notes its arguments and runs the command here.

use std::fs;
use std::path::PathBuf;

use anabranch_transport::http::TlsRoots;
use anabranch_transport::ssh::SshCommand;
use anabranch_transport::{Address, Link, LinkError, TransportConfig, TransportManager, Trust};
use tempfile::TempDir;

/// A directory with a script in place of ssh and one in place of the remote `anabranch`.
struct Stage {
    dir: TempDir,
}

impl Stage {
    fn new() -> Stage {
        let stage = Stage { dir: tempfile::tempdir().unwrap() };
        // ssh's job: the last argument is a command for a shell.
        fs::write(
            stage.path("fake ssh"),
            format!(
                "printf '%s\\n' \"$@\" > '{}'\nfor last; do :; done\nexec sh -c \"$last\"\n",
                stage.path("ssh-args").display()
            ),
        )
        .unwrap();
        // The remote program echoes frames.
        fs::write(
            stage.path("remote"),
            format!(
                "printf '%s\\n' \"$@\" > '{}'\nexec cat\n",
                stage.path("remote-args").display()
            ),
        )
        .unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap().lines().map(str::to_owned).collect()
    }

    async fn connect(&self, address: &str) -> Link {
        let mut config = TransportConfig::new(TlsRoots::new(None).unwrap());
        config.ssh =
            SshCommand::parse(&format!("sh '{}' -p 2222", self.path("fake ssh").display()))
                .unwrap();
        config.remote_program = format!("VAR=1 sh '{}' --home /x", self.path("remote").display());
        TransportManager::new(config)
            .unwrap()
            .connect(&Address::parse(address).unwrap())
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_path_reaches_the_remote_program_whatever_is_in_it() {
    for path in
        ["notes", "/srv/my notes/it's \"here\"", "$HOME;echo `id`", "--help", "a*?[b]\\c #d"]
    {
        let stage = Stage::new();
        let link = stage.connect(&format!("me@host.example:{path}")).await;
        assert_eq!(link.peer(), format!("me@host.example:{path}"));
        assert_eq!(link.trust(), Trust::Trusted);
        let (mut sender, mut receiver) = link.split();
        sender.send(&b"hello"[..]).await.unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), "hello");
        sender.close().await.unwrap();
        assert_eq!(receiver.recv().await.unwrap(), None);

        assert_eq!(stage.lines("ssh-args")[..3], ["-p", "2222", "me@host.example"]);
        let seen = if path.starts_with('-') { format!("./{path}") } else { path.to_owned() };
        assert_eq!(stage.lines("remote-args"), ["--home", "/x", "serve", "--stdio", &seen]);
    }
}

#[tokio::test]
async fn what_ssh_says_is_in_the_error() {
    let stage = Stage::new();
    fs::write(stage.path("fake ssh"), "echo 'Permission denied (publickey).' >&2; exit 255")
        .unwrap();
    let (_sender, mut receiver) = stage.connect("host:x").await.split();
    let error = receiver.recv().await.unwrap_err();
    assert!(matches!(error, LinkError::Process(_)), "{error:?}");
    assert!(error.to_string().contains("Permission denied (publickey)."), "{error}");
}
