// What each page's service says of itself; the proxy answers 502 for one that is not there.
async function look(row) {
  const cell = row.lastElementChild;
  const profile = row.dataset.profile;
  let there = false;
  try {
    const answer = await fetch(row.dataset.path, {redirect: "manual", cache: "no-store"});
    there = answer.type === "opaqueredirect" || answer.status < 500;
  } catch { /* the proxy itself is away */ }
  cell.textContent = there ? "up" : profile ? `not running: docker compose --profile ${profile} up -d` : "not up (yet)";
  cell.className = there ? "up" : "away";
}

function lookAtAll() {
  document.querySelectorAll("tr[data-path]").forEach(look);
}

lookAtAll();
setInterval(lookAtAll, 10000);
