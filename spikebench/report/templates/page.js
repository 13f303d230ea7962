// A click on a column's head sorts its table by that column, a second click the other way. Without this script the
// tables stay as they were built.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const key = (row, column) => row.cells[column].dataset.value ?? "";
  const compare = (a, b) =>
    a !== "" && b !== "" && isFinite(a) && isFinite(b) ? a - b : a < b ? -1 : Number(a > b);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      const rows = [...body.rows].sort((one, two) => {
        const [a, b] = [key(one, column), key(two, column)];
        // What has no value comes last, whichever way the others are sorted.
        if (a === "" || b === "") return Number(a === "") - Number(b === "");
        return falling ? compare(b, a) : compare(a, b);
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      body.append(...rows);
    });
  });
}
