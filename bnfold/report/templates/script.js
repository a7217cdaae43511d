"use strict";
(function () {
  // On paper everything is open; afterwards what the reader had open is open again.
  const all = Array.from(document.querySelectorAll("details"));
  let before = [];
  window.addEventListener("beforeprint", function () {
    before = all.map((item) => item.open);
    all.forEach((item) => { item.open = true; });
  });
  window.addEventListener("afterprint", function () {
    all.forEach((item, i) => { item.open = before[i]; });
  });
  const rows = Array.from(document.querySelectorAll("details.site"));
  if (!rows.length) return;
  document.documentElement.classList.add("scripted");
  const search = document.getElementById("search");
  const shown = document.getElementById("shown");
  const none = document.getElementById("none");
  const toggle = document.getElementById("toggle");
  const keys = ["status", "reason", "direction", "kind"];
  const selects = keys.map((key) => document.getElementById(key));
  const texts = rows.map((row) => row.textContent.toLowerCase());

  keys.forEach(function (key, i) {
    const values = Array.from(new Set(rows.map((row) => row.dataset[key]))).filter(Boolean).sort();
    values.forEach(function (value) {
      const number = rows.filter((row) => row.dataset[key] === value).length;
      selects[i].add(new Option(value + " (" + number + ")", value));
    });
    selects[i].parentElement.hidden = values.length < 2 && key !== "reason" || !values.length;
  });

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let number = 0;
    rows.forEach(function (row, i) {
      const fits =
        words.every((word) => texts[i].includes(word)) &&
        keys.every((key, at) => !selects[at].value || row.dataset[key] === selects[at].value);
      row.hidden = !fits;
      number += fits;
    });
    shown.textContent = number === rows.length ? rows.length + " entries" : number + " of " + rows.length + " entries";
    none.hidden = number > 0;
  }

  search.addEventListener("input", filter);
  selects.forEach((select) => select.addEventListener("change", filter));
  search.form.addEventListener("submit", (event) => event.preventDefault());
  toggle.addEventListener("click", function () {
    const open = toggle.getAttribute("aria-pressed") !== "true";
    rows.forEach((row) => { if (!row.hidden) row.open = open; });
    toggle.setAttribute("aria-pressed", String(open));
    toggle.textContent = open ? "Close all" : "Open all";
  });

  filter();
})();
