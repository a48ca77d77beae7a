// A sign-in link needs no click: the form sends itself.

const form = document.getElementById("sign-in");
if ("hasKey" in form.dataset) form.requestSubmit();
