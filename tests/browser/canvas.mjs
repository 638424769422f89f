// What spice-html5 shows.

/** In the page: the pixels of the primary surface, or null while there is none. */
export function readCanvas() {
  const canvas = document.getElementById("spice_surface_0");
  if (!canvas) return null;
  const { data, width, height } = canvas
    .getContext("2d")
    .getImageData(0, 0, canvas.width, canvas.height);
  let text = "";
  for (let at = 0; at < data.length; at += 32768) {
    text += String.fromCharCode(...data.subarray(at, at + 32768));
  }
  return { width, height, base64: btoa(text) };
}

/** Whether nothing has been painted yet. */
export function isBlack(pixels) {
  return pixels.every((value, at) => at % 4 === 3 || value === 0);
}
