(() => {
  "use strict";
  const events = document.getElementById("events"), live = document.getElementById("live");
  const most = 200;
  let moving = false, busy = false, again = 0;

  // The page is laid out in one place, by the helper: what changes is fetched and put in place.
  async function refresh() {
    if (busy) return;
    busy = true;
    clearTimeout(again);
    try {
      const answer = await fetch(location.pathname, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      const page = next.getElementById("page");
      document.getElementById("page").replaceWith(document.adoptNode(page));
      document.title = next.title;
      moving = page.dataset.moving === "true";
      live.textContent = "live";
    } catch {
      live.textContent = "no answer, trying again";
    }
    busy = false;
    again = setTimeout(refresh, document.hidden ? 30000 : moving ? 1000 : 5000);
  }

  function cell(name, text) {
    const e = document.createElement(name);
    e.textContent = text;
    return e;
  }

  function sentence(n) {
    switch (n.kind) {
      case "lost": return n.lost + " events were missed";
      case "generation": return "generation " + n.gen + ": " + n.from + " → " + n.to + (n.text ? " (" + n.text + ")" : "");
      case "state": return "the whole is " + n.to;
      case "phase": return n.text;
      case "swap": return n.swap.cause + ": " + n.text;
    }
    return (n.gen ? "generation " + n.gen + ": " : "") + (n.text || "");
  }

  function show(kind, message) {
    let n;
    try { n = JSON.parse(message.data); } catch { return; }
    n.kind = kind;
    const li = document.createElement("li");
    const time = cell("time", n.time ? n.time.slice(11, 19) : "");
    time.className = "num soft";
    const what = cell("span", kind === "phase" ? n.phase : kind);
    what.className = "what";
    li.append(time, what, cell("p", sentence(n)));
    events.prepend(li);
    while (events.children.length > most) events.lastChild.remove();
    clearTimeout(again);
    again = setTimeout(refresh, 60);
  }

  const stream = new EventSource("events?after=" + encodeURIComponent(events.dataset.after));
  for (const kind of ["generation", "phase", "swap", "state", "health", "lost"])
    stream.addEventListener(kind, (message) => show(kind, message));
  stream.onopen = () => { live.textContent = "live"; };
  stream.onerror = () => { live.textContent = "connection lost, trying again"; };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  again = setTimeout(refresh, 1000);
})();
