// A file with which virt-viewer opens the desktop: its remote-viewer reaches the desktop through
// the gateway as through a proxy, and says the ticket there as a user's name.

/** Any port will do: the ticket decides where the gateway connects to. */
const SPICE_PORT = 5900;

/** Has the browser save the file for the desktop in the manager's answer. */
export function saveViewerFile(desktop, title) {
  const text = viewerFile(desktop, title, location);
  const blob = new Blob([text], { type: "application/x-virt-viewer" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = "desktop.vv";
  link.click();
  // The browser has opened it by the time that this task is over.
  setTimeout(() => URL.revokeObjectURL(link.href), 0);
}

/** The text of that file, for a page at `place`. */
export function viewerFile(desktop, title, place) {
  const port = place.port || (place.protocol === "https:" ? "443" : "80");
  const ticket = encodeURIComponent(desktop.spice_port);
  const members = {
    type: "spice",
    host: place.hostname.replace(/^\[|\]$/g, ""),
    port: SPICE_PORT,
    password: desktop.spice_password ?? "",
    proxy: `${place.protocol}//${ticket}:x@${place.hostname}:${port}`,
    title,
    "delete-this-file": 1,
  };
  const lines = Object.entries(members).map(([name, value]) => `${name}=${escape(String(value))}`);
  return `[virt-viewer]\n${lines.join("\n")}\n`;
}

/** As GLib's key files have it: a value is one line. */
function escape(value) {
  return value
    .replaceAll("\\", "\\\\")
    .replaceAll("\n", "\\n")
    .replaceAll("\r", "\\r")
    .replaceAll("\t", "\\t")
    .replace(/^ +/, (spaces) => "\\s".repeat(spaces.length));
}
