// Fills in the code of an invitation, which stands behind the # of the mail's link and so reaches no server or log.
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
