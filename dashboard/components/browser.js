// What is the browser's on every page: its history, files that are dropped or pasted anywhere, and clicks on charts.

export default function mount({ data, setTriggerValue }) {
  globalThis.routescopeTell = setTriggerValue;      // that of the last run is the one that is heard
  // The style of the page hides this component. A server that was restarted asks a page that is drawn already; the page
  // that is drawn without waiting any longer needs no word of it.
  const tellStyle = () => {
    const host = document.querySelector(".st-key-browser");
    if (host && getComputedStyle(host).display === "none") globalThis.routescopeTell("style", true);
    else if (!document.querySelector(".st-key-language_switch")) requestAnimationFrame(tellStyle);
  };
  if (data.awaits_style) tellStyle();
  if (globalThis.routescopeBrowser) return;
  globalThis.routescopeBrowser = true;

  // Streamlit adds an entry for every changed setting, to which going back changes the address but not the page. After
  // going back it adds one for what the run that was left still sends, which would end the way forward.
  let wentBack = false;
  addEventListener("popstate", () => { wentBack = true; }, true);
  for (const kind of ["pointerdown", "keydown"]) addEventListener(kind, () => { wentBack = false; }, true);
  const push = history.pushState;
  history.pushState = function (state, title, url) {
    const same = url !== undefined && url !== null && new URL(url, location.href).pathname === location.pathname;
    return (same || wentBack ? history.replaceState : push).call(history, state, title, url);
  };

  const zone = "[data-testid=stFileUploaderDropzone]", inZone = (event) => Boolean(event.target.closest?.(zone));
  const inputs = () => [...document.querySelectorAll(`${zone} input[type=file]`)];
  const endings = (input) => input.accept.toLowerCase().split(",").map((kind) => kind.trim()).filter((kind) => kind[0] === ".");
  const taker = (file, among) => among.find((one) => endings(one).includes(`.${file.name.split(".").pop().toLowerCase()}`));
  // Streamlit says so on hover alone, and of a file that was dropped beside a field nothing at all.
  const refuse = (files, among) => {
    const file = among.length && files.find((one) => !taker(one, among));
    if (file) globalThis.routescopeTell("refused", [file.name, [...new Set(among.flatMap(endings))].join(" ")]);
  };
  // A field for many takes all that are of its kind, any other the first.
  const give = (files) => {
    const first = files.find((file) => taker(file, inputs()));
    if (!first) return false;
    const input = taker(first, inputs()), carrier = new DataTransfer();
    for (const file of input.multiple ? files.filter((one) => taker(one, [input])) : [first]) carrier.items.add(file);
    input.files = carrier.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    return true;
  };
  // A word of what is refused runs the page, and a field may lose what is on its way then: it waits until that is there.
  const giveAndRefuse = (files) => {
    const among = inputs(), given = give(files);
    setTimeout(() => refuse(files, among), given ? 2500 : 0);
    return given;
  };
  // While a page is drawn its fields may not be there yet: files wait for them.
  const drawing = () => document.querySelector(".stApp")?.dataset.testScriptState === "running"
    || Boolean(document.querySelector("[data-testid=stMain] [data-testid^=stSkeleton]"));
  const giveOnceDrawn = (files) => {
    if (inputs().length || !drawing()) return giveAndRefuse(files);
    setTimeout(giveOnceDrawn, 100, files);
    return true;
  };
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (event.defaultPrevented || inZone(event) || !files.length) return;
    if (giveOnceDrawn(files)) event.preventDefault();
  });
  document.addEventListener("dragover", (event) => {
    if (!inZone(event) && event.dataTransfer?.types.includes("Files")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    const files = [...(event.dataTransfer?.files ?? [])], field = event.target.closest?.(zone);
    if (field) refuse(files, [...field.querySelectorAll("input[type=file]")]);
    if (field || !files.length) return;
    event.preventDefault();     // else the browser leaves the page to show the file
    giveOnceDrawn(files);
  }, true);
  document.addEventListener("change", (event) => {
    if (event.target.matches?.(`${zone} input[type=file]`)) refuse([...event.target.files], [event.target]);
  }, true);

  // Plotly looks what a pointer is at up to 50 ms after it moved. Where a button is down by then it takes that for
  // dragging, forgets what was pointed at, and the click chooses nothing.
  let pressed = {};
  addEventListener("mousedown", ({ target }) => {
    const chart = target.closest?.(".js-plotly-plot");
    pressed = { chart, pointed: chart?._hoverdata };
  }, true);
  addEventListener("mouseup", () => {
    if (pressed.pointed && !pressed.chart._dragged) pressed.chart._hoverdata ??= pressed.pointed;
  }, true);
}
