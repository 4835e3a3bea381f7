//! A real nginx in front of usher, as operators have it.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::process::{free_address, wait_for};

/// nginx with the snippet of the package.
pub(crate) struct Nginx {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Nginx {
    /// Starts it in front of usher; `None` if it isn't installed.
    pub(crate) fn start(dir: &Path, usher: SocketAddr) -> Option<Self> {
        let address = free_address();
        let snippet = include_str!("../../packaging/nginx/usher.conf");
        let snippet = snippet.replace("127.0.0.1:8060", &usher.to_string());
        let dir = dir.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {dir}/{name};\n"))
            .concat();
        let config = format!(
            "daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.log; worker_processes 1;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; {temporary} server {{ listen {address}; {snippet} }} }}\n"
        );
        let file = format!("{dir}/nginx.conf");
        std::fs::write(&file, config).unwrap();
        let child = ["/usr/sbin/nginx", "nginx"].iter().find_map(|program| {
            let mut command = Command::new(program);
            command.args(["-c", &file]).stdin(Stdio::null());
            command.stderr(Stdio::null()).spawn().ok()
        })?;
        let nginx = Self { child, address };
        wait_for("nginx to answer", || TcpStream::connect(address).is_ok());
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its master process ends the workers, which it does not at SIGKILL.
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let _ = self.child.wait();
    }
}
