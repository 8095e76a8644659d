// Asks the browser to make or use a passkey and posts the answer as a form.
"use strict";

(() => {
  const form = document.getElementById("ceremony");
  const status = document.getElementById("status");
  const again = document.getElementById("again");

  const bytes = (text) =>
    Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (mark) => mark.charCodeAt(0));

  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

  const named = (list) => (list || []).map((one) => ({ ...one, id: bytes(one.id) }));

  const asked = () => {
    const options = JSON.parse(form.dataset.options);
    options.challenge = bytes(options.challenge);
    if (form.dataset.kind === "create") {
      options.user.id = bytes(options.user.id);
      options.excludeCredentials = named(options.excludeCredentials);
    } else {
      options.allowCredentials = named(options.allowCredentials);
    }
    return { publicKey: options };
  };

  const answered = (credential) => {
    const response = {};
    for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
      if (credential.response[name]) {
        response[name] = text(credential.response[name]);
      }
    }
    return JSON.stringify({ id: credential.id, rawId: text(credential.rawId), type: credential.type, response });
  };

  const run = async () => {
    again.hidden = true;
    try {
      const credential = await navigator.credentials[form.dataset.kind](asked());
      form.elements.credential.value = answered(credential);
      form.submit();
    } catch (error) {
      const known = error.name === "InvalidStateError";
      status.textContent = known ? "This device has a passkey for you already." : "That failed or was cancelled.";
      again.hidden = false;
    }
  };

  if (!window.PublicKeyCredential) {
    status.textContent = "This browser does not support passkeys. Go back and choose another way to sign in.";
    return;
  }
  again.addEventListener("click", run);
  run();
})();
