-- The next event of each kind is found by an index, however many conferences are live.

CREATE INDEX live_by_end ON live (live_until);

DROP INDEX booking_auto_live;
CREATE INDEX booking_auto_live ON booking (starts_at + auto_live * 60000)
    WHERE auto_live IS NOT NULL AND went_live_at IS NULL;

CREATE INDEX upstream_conference_over ON upstream_conference (COALESCE(ended_at, ends_at));
