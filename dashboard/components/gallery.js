// A strip of pictures as a radio group: click, or Tab to it and use the arrow keys.

export default function mount({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".gallery");
  root.setAttribute("role", "radiogroup");
  root.setAttribute("aria-label", tr("Built-in pictures"));
  const known = [...root.children].map((one) => one.dataset.key);
  if (known.join(" ") !== data.items.map(({ key }) => key).join(" ")) {
    root.replaceChildren(...data.items.map(({ key, label, src }) => {
      const button = document.createElement("button"), image = document.createElement("img");
      button.type = "button"; button.dataset.key = key; button.setAttribute("role", "radio");
      image.src = src; image.alt = "";
      button.append(image, label);
      return button;
    }));
  }
  const buttons = [...root.children];
  const some = buttons.some((b) => b.dataset.key === data.chosen);
  buttons.forEach((button, n) => {
    const on = button.dataset.key === data.chosen;
    button.setAttribute("aria-checked", String(on));
    button.tabIndex = on || (!some && n === 0) ? 0 : -1;
    button.onclick = () => setTriggerValue("picked", button.dataset.key);
    button.onkeydown = (event) => stepRadio(event, buttons, n);
  });
}
