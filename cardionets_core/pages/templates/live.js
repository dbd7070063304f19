(() => {
  "use strict";
  const main = document.getElementById("main"), said = document.getElementById("said");
  const lost = document.getElementById("lost");
  let tag = "", seen = new Date(), spoken = word(), wait = 2000;
  function word() { const each = main.querySelector("[data-say]"); return each ? each.dataset.say : ""; }
  function place() {
    const opened = new Map([...main.querySelectorAll("details[id]")].map((each) => [each.id, each.open]));
    const along = new Map([...main.querySelectorAll(".scroll[id]")].map((each) => [each.id, each.scrollLeft]));
    const held = document.activeElement, inside = main.contains(held) ? held : null;
    const owner = inside && inside.closest("[id]"), summary = inside && inside.tagName === "SUMMARY";
    return { opened, along, summary, id: owner && owner !== main ? owner.id : "", x: scrollX, y: scrollY };
  }
  function put(text) {
    const before = place();
    main.innerHTML = text;
    for (const [id, open] of before.opened) { const each = document.getElementById(id); if (each) each.open = open; }
    for (const [id, left] of before.along) { const each = document.getElementById(id); if (each) each.scrollLeft = left; }
    const owner = before.id && document.getElementById(before.id);
    const held = owner && before.summary ? owner.querySelector("summary") : owner;
    if (held) held.focus({ preventScroll: true });
    scrollTo(before.x, before.y);
    const now = word();
    if (now && now !== spoken) said.textContent = spoken = now;
  }
  function miss(text) {
    lost.textContent = text + " What you see is from " + seen.toLocaleTimeString() + ".";
    lost.hidden = false;
    wait = Math.min(wait * 1.5, 15000);
  }
  async function look() {
    try {
      const answer = await fetch("part", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
      if (answer.status === 403) miss("This page's server was started anew: open the address that it told.");
      else if (!answer.ok && answer.status !== 304) miss("The page cannot be made just now.");
      else {
        if (answer.ok) { put(await answer.text()); tag = answer.headers.get("ETag") || ""; }
        seen = new Date(); lost.hidden = true; wait = 2000;
      }
    } catch { miss("The connection to this page's server is lost; it is tried again."); }
    setTimeout(look, wait);
  }
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    const text = button && document.getElementById(button.dataset.copy);
    if (!text) return;
    try { await navigator.clipboard.writeText(text.textContent); said.textContent = "Copied."; }
    catch { getSelection().selectAllChildren(text); said.textContent = "Selected: copy it with the keyboard."; }
  });
  setTimeout(look, wait);
})();
