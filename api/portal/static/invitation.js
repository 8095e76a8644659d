// Fills in the code of an invitation. The code is after the # of the mail's link, so that it reaches no server or log.
"use strict";

(() => {
  const code = decodeURIComponent(location.hash.slice(1));
  if (!/^[A-Z2-7-]{16,64}$/.test(code)) {
    return;
  }
  document.getElementById("code").value = code;
  document.getElementById("filled").hidden = false;
  document.getElementById("by-hand").hidden = true;
  history.replaceState(null, "", location.pathname);
})();
