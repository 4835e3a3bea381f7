-- usher's options for Prosody. They take effect once this file is linked:
--   ln -s ../conf.avail/usher.cfg.lua /etc/prosody/conf.d/
--
-- Prosody finds the modules without plugin_paths. Add this line to modules_enabled of the main VirtualHost
-- in /etc/prosody/conf.d/DOMAIN.cfg.lua; a list here would replace that one:
--   "usher_reservations"; "usher_queue";
-- Then: prosodyctl mod_usher_check DOMAIN && systemctl restart prosody (which ends the running conferences).
-- The first command fails if the configuration can't be read. `prosodyctl check config` also fails for its advice.

usher_url = "http://127.0.0.1:8060"
usher_token_file = "/etc/jitsi/usher/service-token"

-- Whether conferences may start while usher is unreachable: "deny" or "allow".
-- usher_on_failure = "deny"

-- How many seconds before the end the occupants receive a warning; 0: no warning.
-- usher_warn_before = 300

-- Only with Jitsi's visitors_component instead of usher_queue: it signs with this key. usher has the public
-- half in /etc/jitsi/usher/keys/jitsi.pem.
-- visitors_queue_service = "http://127.0.0.1:8060/waiting-queue"
-- asap_key_path = "/etc/prosody/certs/asap.key"
-- asap_key_id = "jitsi"
