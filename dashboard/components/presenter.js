// The foot of the lesson: back, on, the address of this step, and the switch to large type. In front of a class the keys
// of the whole page are its own, except where one types or has moved by keyboard to something that needs them.

const views = new WeakMap();
const TYPING = "input:not([type=radio]):not([type=checkbox]), textarea, select, [contenteditable=true], [role=slider], "
  + "[role=application], [role=combobox], [role=listbox], [role=spinbutton]";
const ACTIVE = "button, a[href], summary, input, [role=radio], [role=tab], [role=button], [role=option]";

export default function mount({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".presenter");
  let view = views.get(root);
  if (!view) { view = build(root); views.set(root, view); }
  view.tell = setTriggerValue;
  const moved = view.data && view.data.stop !== data.stop;
  view.data = data;
  paint(view);
  if (moved) {
    document.querySelector("[data-testid=stMain]")?.scrollTo(0, 0);
    if (data.present) deepest()?.blur();
  }
  // The same two functions at every call: a page listens once, however often it is drawn.
  document.addEventListener("pointerdown", view.onPointer, true);
  document.addEventListener("keydown", view.onKey, true);
  root.dataset.ready = data.stop;
  return () => {
    document.removeEventListener("pointerdown", view.onPointer, true);
    document.removeEventListener("keydown", view.onKey, true);
  };
}

function build(root) {
  const view = { root, tabbed: false };
  // Some browsers tell focus by mouse from focus by keyboard only as long as no key is pressed: it is noted here.
  view.onPointer = () => { view.tabbed = false; };
  view.onKey = (event) => keys(view, event);
  const button = (name, go) => el("button", { type: "button", class: name, onclick: () => view.tell("go", go) });
  view.back = button("back", "back"); view.next = button("next", "next");
  view.switch = el("button", { type: "button", class: "switch", onclick: () => view.tell("go", view.data.present ? "leave" : "present") });
  view.copy = el("button", { type: "button", class: "copy", onclick: () => copy(view) });
  view.place = el("span", { class: "place" });
  view.address = el("input", { class: "address", readonly: true, onclick: () => view.address.select() });
  view.live = el("span", { class: "status", "aria-live": "polite" });
  view.code = el("img", { alt: "" }); view.hall = el("p"); view.here = el("p");
  const close = el("button", { type: "button", onclick: () => view.dialog.close() }, tr("Close"));
  view.dialog = el("dialog", {}, view.code, view.hall, view.here, close);
  view.qr = el("button", { type: "button", class: "qr", onclick: () => view.dialog.showModal() });
  root.append(view.back, view.place, view.next, view.address, view.copy, view.qr, view.live, view.switch, view.dialog);
  return view;
}

function paint(view) {
  const { data, root } = view;
  root.classList.toggle("present", data.present);
  view.back.textContent = `‹ ${tr("Back")}`; view.back.disabled = data.first;
  view.next.textContent = `${tr("Next")} ›`; view.next.disabled = data.last;
  view.copy.textContent = tr("Copy link");
  view.switch.textContent = data.present ? tr("Leave (Esc)") : tr("Present");
  view.switch.title = data.present ? "" : tr("Large type, one thing at a time; keys left, right and space");
  view.place.textContent = data.place;
  view.qr.textContent = tr("QR code"); view.qr.hidden = !data.qr;
  view.code.src = data.qr || ""; view.code.alt = tr("QR code of this step's address"); view.hall.textContent = address(data);
  view.here.textContent = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname)
    ? tr("This address opens on this computer only. For the hall, start with --server.address and this computer's address.") : "";
  view.address.value = address(data);
  view.address.setAttribute("aria-label", tr("Address of this step"));
}

const address = (data) => `${location.origin}${location.pathname}${data.query ? `?${data.query}` : ""}`;

function copy(view) {
  const announce = (text) => { view.live.textContent = text; setTimeout(() => { view.live.textContent = ""; }, 2500); };
  const byHand = () => { view.address.select(); announce(tr("Press Ctrl+C")); };
  // Browsers lend the clipboard to secure addresses only, which that of a lecture machine need not be.
  if (navigator.clipboard) navigator.clipboard.writeText(address(view.data)).then(() => announce(tr("Copied")), byHand);
  else byHand();
}

function deepest() {
  let at = document.activeElement;
  while (at?.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
  return at;
}

function keys(view, event) {
  if (event.key === "Tab") view.tabbed = true;
  if (!view.data.present || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
  const go = { ArrowRight: "next", ArrowLeft: "back", " ": "next", PageDown: "next", PageUp: "back", Escape: "leave" }[event.key];
  if (!go) return;
  if (view.dialog.open) return;      // Escape closes it
  const path = event.composedPath().filter((one) => one instanceof Element);
  const typing = path.some((one) => one.matches(TYPING));
  const taken = typing || (view.tabbed && path.some((one) => one.matches(ACTIVE)));
  if (go === "leave" && taken) { deepest()?.blur(); return; }     // first out of the widget, then out of the room
  if (taken) return;
  event.preventDefault(); event.stopPropagation();
  if ((go === "next" && view.data.last) || (go === "back" && view.data.first)) return;
  view.tell("go", go);
}
