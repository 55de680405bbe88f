// A drawing of the worked example, of which one token is chosen, by a click or by the arrow keys and Enter.

export default function mount({ parentElement, data, setStateValue }) {
  const root = parentElement.querySelector(".number-grid");
  const focused = root.getRootNode().activeElement?.closest?.("[data-token]")?.dataset.token;
  if (root.dataset.html !== data.html) {
    root.innerHTML = data.html; // drawn by the app alone: no visitor's words are in it
    root.dataset.html = data.html;
  }
  const cells = () => [...root.querySelectorAll("[data-token]")];
  const go = (token) => cells().find((cell) => cell.dataset.token === String(token))?.focus();
  if (focused !== undefined) go(focused);
  root.onclick = (event) => {
    const cell = event.target.closest("[data-token]");
    if (cell) setStateValue("token", Number(cell.dataset.token));
  };
  root.onkeydown = (event) => {
    const cell = event.target.closest("[data-token]");
    if (!cell) return;
    const at = Number(cell.dataset.token), side = Math.round(Math.sqrt(cells().length));
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: side, ArrowUp: -side }[event.key];
    if (step) go(at + step);
    else if (event.key === "Enter" || event.key === " ") setStateValue("token", at);
    else return;
    event.preventDefault(); event.stopPropagation();
  };
}
