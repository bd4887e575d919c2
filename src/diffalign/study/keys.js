// Keys: a digit answers the question that has the focus, or else the first without an answer, and goes on.
"use strict";

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  const back = document.querySelector("a[rel=prev]");
  if (event.key.toLowerCase() === "b" && back) {
    event.preventDefault();
    back.click();
    return;
  }
  const form = document.querySelector("form[action^='/vote/']");
  if (!form) return;
  if (event.key === "Enter" && document.activeElement === document.body) {
    form.requestSubmit();
    return;
  }
  const fields = [...form.querySelectorAll("fieldset")];
  const open = fields.find((field) => !field.querySelector("input:checked"));
  const field = document.activeElement.closest("fieldset") || open;
  const choice = field && field.querySelectorAll("input")[Number(event.key) - 1];
  if (!choice || !/^[1-9]$/.test(event.key)) return;
  event.preventDefault();
  choice.checked = true;
  const following = fields[fields.indexOf(field) + 1];
  (following ? following.querySelector("input:checked, input") : form.querySelector("button")).focus();
}

document.addEventListener("keydown", pressed);
