// What is the browser's on every page: its history, and files that are dropped or pasted anywhere.

export default function mount() {
  if (globalThis.routescopeBrowser) return;
  globalThis.routescopeBrowser = true;

  // Streamlit adds an entry for every changed setting, to which going back changes the address but not the page.
  const push = history.pushState;
  history.pushState = function (state, title, url) {
    const same = url !== undefined && url !== null && new URL(url, location.href).pathname === location.pathname;
    return (same ? history.replaceState : push).call(history, state, title, url);
  };

  const zone = "[data-testid=stFileUploaderDropzone]", inZone = (event) => Boolean(event.target.closest?.(zone));
  const give = (files) => files.some((file) => {
    const ending = `.${file.name.split(".").pop().toLowerCase()}`;
    const input = [...document.querySelectorAll(`${zone} input[type=file]`)]
      .find((one) => one.accept.toLowerCase().split(",").some((kind) => kind.trim() === ending));
    if (!input) return false;
    const carrier = new DataTransfer();
    carrier.items.add(file);
    input.files = carrier.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    return true;
  });
  document.addEventListener("paste", (event) => {
    if (!event.defaultPrevented && !inZone(event) && give([...(event.clipboardData?.files ?? [])])) event.preventDefault();
  });
  document.addEventListener("dragover", (event) => {
    if (!inZone(event) && event.dataTransfer?.types.includes("Files")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    if (inZone(event) || !event.dataTransfer?.files.length) return;
    event.preventDefault();     // else the browser leaves the page to show the file
    give([...event.dataTransfer.files]);
  });
}
