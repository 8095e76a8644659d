-- Asks Lockbox's gate about each call: http-request lua.lockbox_gate in haproxy.cfg. An answer other than 200 is shown to
-- the client; no answer is 503.

local URL = "http://127.0.0.1:8000/gate/v1/exchange-online" -- CHANGE: the API of Lockbox, and the service's name
local TOKEN_FILE = "/etc/lockbox/gateway-token" -- CHANGE: the gateway's token, alone, which only root can read
local SECONDS = 2

local file = assert(io.open(TOKEN_FILE))
local TOKEN = file:read("l")
file:close()

local TOLD = { "decision", "request", "engineer", "tenant", "resource", "action", "until", "break-glass" }
local SHOWN = { "content-type", "lockbox-reason", "lockbox-form", "www-authenticate", "cache-control", "vary" }

local function refuse(txn, status, headers, body)
    local reply = txn:reply()
    reply:set_status(status)
    for name, value in pairs(headers) do
        reply:add_header(name, value)
    end
    reply:set_body(body)
    txn:done(reply)
end

local function no_answer(txn)
    local headers = { ["content-type"] = "application/problem+json", ["lockbox-reason"] = "no_answer" }
    headers["cache-control"] = "no-store"
    local kind = '{"type":"urn:lockbox:problem:gate-no-answer","title":"No access","status":503,"code":"no_answer"'
    refuse(txn, 503, headers, kind .. ',"detail":"Lockbox does not answer. Try again in a minute."}\n')
end

-- All values of a header, so that the gate sees one that is repeated.
local function every(found)
    local values = {}
    for at = 0, #(found or {}) do
        values[#values + 1] = found and found[at]
    end
    return #values > 0 and values or nil
end

core.register_action("lockbox_gate", { "http-req" }, function(txn)
    local sent = txn.http:req_get_headers()
    local headers = {
        ["lockbox-gateway"] = { TOKEN },
        ["x-original-method"] = { txn.f:method() },
        ["x-original-uri"] = { txn.f:url() },
        ["x-original-host"] = every(sent["host"]),
        ["authorization"] = every(sent["authorization"]),
        ["accept"] = every(sent["accept"]),
        -- The gate refuses content types whose bodies say what is read, such as gRPC's.
        ["content-type"] = every(sent["content-type"]),
    }
    local asked, answer = pcall(function()
        return core.httpclient():get({ url = URL, headers = headers, timeout = SECONDS * 1000 })
    end)
    if not asked or not answer or (answer.status ~= 200 and answer.status ~= 401 and answer.status ~= 403) then
        return no_answer(txn)
    end
    if answer.status ~= 200 then
        local shown = {}
        for _, name in ipairs(SHOWN) do
            local values = answer.headers[name]
            shown[name] = values and values[0]
        end
        return refuse(txn, answer.status, shown, answer.body)
    end
    for _, name in ipairs(TOLD) do
        local values = answer.headers["lockbox-" .. name]
        if values then
            txn.http:req_set_header("lockbox-" .. name, values[0])
        end
    end
end, 0)
