// Filters the items that changed; without this script all of them are shown.
(() => {
  const bar = document.querySelector(".filters");
  const items = [...document.querySelectorAll(".flip")];
  const kinds = [...bar.querySelectorAll("button[data-flip]")];
  const category = bar.querySelector("select");
  const search = bar.querySelector("input");
  const opener = bar.querySelector("button[data-open]");
  const count = bar.querySelector("output");
  const texts = new Map();
  let kind = "";

  const text = (item) => {
    if (!texts.has(item)) texts.set(item, item.textContent.toLowerCase());
    return texts.get(item);
  };

  const shown = () => items.filter((item) => !item.hidden);

  const apply = () => {
    const wanted = search.value.trim().toLowerCase();
    for (const item of items) {
      item.hidden =
        (kind && item.dataset.flip !== kind) ||
        (category && category.value && item.dataset.category !== category.value) ||
        (wanted && !text(item).includes(wanted));
    }
    count.textContent = `${shown().length} of ${items.length}`;
  };

  for (const button of kinds) {
    button.addEventListener("click", () => {
      kind = button.dataset.flip;
      for (const other of kinds) other.setAttribute("aria-pressed", String(other === button));
      apply();
    });
  }
  if (category) category.addEventListener("change", apply);
  search.addEventListener("input", apply);
  opener.addEventListener("click", () => {
    const open = opener.textContent === "Open all";
    for (const item of shown()) item.open = open;
    opener.textContent = open ? "Close all" : "Open all";
  });
  bar.hidden = false;
  apply();
})();
