// Airflow shows this page in a frame that may neither leave its place nor open windows: links that lead out of it are
// followed by the page around it, which is Airflow's own and of the same site.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[target]");
  if (!link || window.parent === window) return;
  let around;
  try {
    around = window.parent.document;
  } catch {
    return; // somebody else's page
  }
  event.preventDefault();
  const same = around.createElement("a");
  same.href = link.href;
  if (link.target === "_blank") Object.assign(same, {target: "_blank", rel: "noopener"});
  around.body.append(same);
  same.click();
  same.remove();
});
