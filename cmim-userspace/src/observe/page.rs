//! The status page: `cmim status` for a browser, in one file without scripts.

use std::fmt::{self, Display, Write};

use crate::control::figures;
use crate::control::message::{BufferTier, Server, Status};

/// Seconds between two loads of the page.
const REFRESH_SECONDS: u32 = 2;

const STYLE: &str = "\
:root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}\
body{max-width:64rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.4rem;margin:0}h2{font-size:1rem;margin:1.6rem 0 .3rem}\
p{margin:.2rem 0;opacity:.75}\
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.6rem;margin:1rem 0}\
dl div{border:1px solid #8885;border-radius:.4rem;padding:.4rem .7rem}\
dt{font-size:.8rem;opacity:.75}dd{margin:0;font-size:1.2rem;font-variant-numeric:tabular-nums}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:right;padding:.25rem .6rem;border-bottom:1px solid #8884}\
th{font-weight:600;font-size:.85rem}th:first-child,td:first-child,.t{text-align:left}\
.up{color:#197a33}.down{color:#c22}.probing,.draining{color:#a60}\
meter{width:10rem}";

/// The whole page.
#[must_use]
pub(super) fn html(status: &Status) -> String {
    let mut page = Page::default();
    page.put(format_args!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>cmim</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"refresh\" content=\"{REFRESH_SECONDS}\"><style>{STYLE}</style></head><body>"
    ));
    let state = if status.draining { "draining" } else { "running" };
    page.put(format_args!(
        "<h1>cmim {}</h1><p>{state}, up {}, pid {}, workers {}</p>",
        Escaped(&status.version),
        figures::span(status.uptime_seconds),
        status.pid,
        status.workers
    ));
    headline(&mut page, status);
    servers(&mut page, &status.servers);
    buffers(&mut page, status);
    lanes(&mut page, status);
    kernel(&mut page, status);
    page.put(format_args!("</body></html>\n"));
    page.text
}

fn headline(page: &mut Page, status: &Status) {
    let server = &status.server_connections;
    page.put(format_args!("<dl>"));
    for (name, text) in [
        ("clients", figures::count(status.client_connections.open)),
        ("requests", figures::count(status.requests_total)),
        ("server connections", figures::count(server.open)),
        ("reused", figures::percent(server.reused_total, server.reused_total.saturating_add(server.opened_total))),
        ("replies with new length", figures::count(status.replies.rewritten_total)),
        ("replies streamed", figures::count(status.replies.streamed_total)),
        ("refusals and errors", figures::count(status.replies.local_total)),
        ("stacked requests", figures::count(status.stacked.noticed_total)),
        ("jobs active", figures::count(status.jobs.active)),
        ("jobs queued", figures::count(status.jobs.queued)),
    ] {
        page.put(format_args!("<div><dt>{name}</dt><dd>{text}</dd></div>"));
    }
    page.put(format_args!("</dl>"));
}

fn servers(page: &mut Page, servers: &[Server]) {
    page.head("Servers", &["upstream", "address", "state", "in flight", "idle", "requests", "failures"]);
    for server in servers {
        page.put(format_args!(
            "<tr><td>{}</td><td class=\"t\">{}</td><td class=\"{state}\">{state}</td>",
            Escaped(&server.upstream),
            Escaped(&server.address),
            state = Escaped(&server.state),
        ));
        page.cells(&[
            figures::count(server.in_flight),
            figures::count(server.idle),
            figures::count(server.requests_total),
            figures::count(server.failures_total),
        ]);
    }
    page.put(format_args!("</table>"));
}

fn buffers(page: &mut Page, status: &Status) {
    page.head("Buffers", &["tier", "", "used", "size", "replies", "spilled", "refused"]);
    let buffers = &status.buffers;
    tier(page, "memory", Some(&buffers.memory));
    tier(page, "flash", buffers.flash.as_ref());
    tier(page, "disk", buffers.disk.as_ref());
    page.put(format_args!("</table>"));
}

fn tier(page: &mut Page, name: &str, tier: Option<&BufferTier>) {
    let Some(tier) = tier else { return };
    page.put(format_args!("<tr><td>{name}</td><td><meter max=\"{}\" value=\"{}\"></meter></td>", tier.size, tier.used));
    page.cells(&[
        figures::bytes(tier.used),
        figures::bytes(tier.size),
        figures::count(tier.replies),
        figures::count(tier.spilled_total),
        figures::count(tier.refused_total),
    ]);
}

fn lanes(page: &mut Page, status: &Status) {
    page.head("Lanes", &["lane", "active", "carried", "bytes"]);
    let lanes = &status.lanes;
    for (name, lane) in [("copy", lanes.copy), ("pipe", lanes.pipe), ("sockmap", lanes.sockmap), ("local", lanes.local)]
    {
        page.put(format_args!("<tr><td>{name}</td>"));
        page.cells(&[
            figures::count(lane.active),
            figures::count(lane.splices_total),
            figures::bytes(lane.bytes_total),
        ]);
    }
    page.put(format_args!("</table>"));
}

fn kernel(page: &mut Page, status: &Status) {
    let kernel = &status.kernel;
    page.head("Kernel", &["program", "kind", "attached to"]);
    for program in &kernel.programs {
        page.put(format_args!(
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            Escaped(&program.name),
            Escaped(&program.kind),
            Escaped(&program.attached_to.join(", "))
        ));
    }
    page.put(format_args!("</table><p>{}</p>", Escaped(&kernel.mode)));
    for missing in &kernel.missing {
        page.put(format_args!("<p>missing: {}</p>", Escaped(missing)));
    }
}

#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    fn put(&mut self, text: fmt::Arguments<'_>) {
        // Writing into a String cannot fail.
        let _: fmt::Result = self.text.write_fmt(text);
    }

    fn head(&mut self, title: &str, columns: &[&str]) {
        self.put(format_args!("<h2>{title}</h2><table><tr>"));
        for column in columns {
            self.put(format_args!("<th>{column}</th>"));
        }
        self.put(format_args!("</tr>"));
    }

    /// The rest of a row.
    fn cells(&mut self, cells: &[String]) {
        for cell in cells {
            self.put(format_args!("<td>{cell}</td>"));
        }
        self.put(format_args!("</tr>"));
    }
}

/// Text that is neither markup nor the end of an attribute.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_the_configuration_are_text_and_never_markup() {
        let status = Status {
            servers: vec![Server {
                upstream: "<script>\"&".to_owned(),
                state: "up\"><b>".to_owned(),
                ..Server::default()
            }],
            ..Status::default()
        };
        let page = html(&status);
        assert!(page.contains("&lt;script&gt;&quot;&amp;"));
        assert!(!page.contains("<script") && !page.contains("<b>"));
    }

    #[test]
    fn every_tag_is_closed() {
        let status = Status { servers: vec![Server::default()], ..Status::default() };
        let page = html(&status);
        for tag in ["table", "tr", "td", "th", "dl", "div", "meter", "body", "html"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
