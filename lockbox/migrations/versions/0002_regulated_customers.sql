-- What 0.2.0 lacks of the schema, by noun. Processes of 0.2.0 run on it: see CONTRIBUTING.md, Migrations.
--
-- A function or a trigger that several nouns change stands in the last part, as it is after all of them.


-- Extensions and future starts


-- Break-glass


-- Cases and duplicates


-- Ordered stages, context and levels


-- Pre-approvals


-- Where the requester works, and severity


-- Exclusions, retention and leaving


-- Functions and triggers that several of these change
