-- usher's options for Prosody. Nothing here is in force until it is linked:
--   ln -s ../conf.avail/usher.cfg.lua /etc/prosody/conf.d/
--
-- The modules are found without a plugin_paths. They are loaded by a line of the main VirtualHost's own
-- modules_enabled in /etc/prosody/conf.d/DOMAIN.cfg.lua; a list here would replace that one:
--   "usher_reservations"; "usher_queue";
-- Then: prosodyctl check config && systemctl restart prosody (which ends the conferences that run).

usher_url = "http://127.0.0.1:8060"
usher_token_file = "/etc/jitsi/usher/service-token"

-- Whether conferences may start while usher can't be reached: "deny" or "allow".
-- usher_on_failure = "deny"

-- How many seconds before its end a conference is warned; 0: not at all.
-- usher_warn_before = 300

-- Only with Jitsi's own visitors_component instead of usher_queue: it signs with this key, whose public
-- half usher has in /etc/jitsi/usher/keys/jitsi.pem.
-- visitors_queue_service = "http://127.0.0.1:8060/waiting-queue"
-- asap_key_path = "/etc/prosody/certs/asap.key"
-- asap_key_id = "jitsi"
