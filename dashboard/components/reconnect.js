// The page runs again when the browser has found its server again: a server that was restarted knows nothing of this
// visit, and would take the visitor's next click for the first. Streamlit itself waits for that click.

export default function mount({ setTriggerValue }) {
  const app = document.querySelector(".stApp");
  let was = app?.dataset.testConnectionState;
  const watch = new MutationObserver(() => {
    const now = app.dataset.testConnectionState;
    if (now === "CONNECTED" && was !== "CONNECTED") setTriggerValue("back", Date.now());
    was = now;
  });
  if (app) watch.observe(app, { attributes: true, attributeFilter: ["data-test-connection-state"] });
  return () => watch.disconnect();
}
